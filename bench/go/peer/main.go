// Command peer does what tsh does in tunnel mode: it takes plaintext on a local port, dials the upstream
// for each connection with crypto/tls and the client certificate, and copies both ways with io.Copy until
// either side ends.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strings"

	"dbproxy/bench/wire"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where to listen")
	upstream := flag.String("upstream", "", "address of the upstream")
	cert := flag.String("cert", "", "client certificate")
	key := flag.String("key", "", "its private key")
	ca := flag.String("ca", "", "authority of the upstream")
	alpn := flag.String("alpn", "teleport-postgres-ping,teleport-postgres", "ALPN values, comma-separated")
	resume := flag.Bool("resume", false, "resume TLS sessions, which tsh does not")
	flag.Parse()
	config, err := wire.ClientConfig(*cert, *key, *ca, strings.Split(*alpn, ","), *resume)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			if err := carry(conn, *upstream, config); err != nil {
				log.Print(err)
			}
		}()
	}
}

func carry(client net.Conn, address string, config *tls.Config) error {
	defer client.Close()
	upstream, err := dial(address, config)
	if err != nil {
		return err
	}
	defer upstream.Close()
	ended := make(chan struct{}, 2)
	copyAll := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // an error is an end like any other here
		ended <- struct{}{}
	}
	go copyAll(upstream, client)
	go copyAll(client, upstream)
	<-ended
	return nil
}

func dial(address string, config *tls.Config) (net.Conn, error) {
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(conn.ConnectionState().NegotiatedProtocol, wire.PingSuffix) {
		return wire.NewPingConn(conn), nil
	}
	return conn, nil
}
