// Command upstream stands for the Teleport Proxy and a database behind it: TLS 1.3, a client certificate
// that is demanded and verified, ping framing where the client offers it, and inside it either the few
// commands of package wire or a real database that it forwards to.
//
// It prints its addresses as one line of JSON and takes commands on standard input, each answered by a
// line of JSON: "tickets on", "tickets off", "stats". It ends when its input does.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dbproxy/bench/wire"
)

const (
	plainALPN        = "teleport-postgres"
	pingALPN         = plainALPN + wire.PingSuffix
	handshakeTimeout = 30 * time.Second
	echoSize         = 8 << 10
)

type server struct {
	inner        *tls.Config // for what comes inside an upgraded or passed through connection
	pingInterval time.Duration
	forward      string
	tickets      atomic.Bool
	handshakes   atomic.Int64
	resumed      atomic.Int64
}

func main() {
	cert := flag.String("cert", "", "the web certificate")
	key := flag.String("key", "", "its private key")
	hostCert := flag.String("host-cert", "", "the certificate shown inside upgraded connections")
	hostKey := flag.String("host-key", "", "its private key")
	clientCA := flag.String("client-ca", "", "authority of the client certificates")
	forward := flag.String("forward", "", "path of the Unix socket of a database; needed for its address")
	interval := flag.Duration("ping-interval", 30*time.Second, "time between pings")
	flag.Parse()
	web, err := tls.LoadX509KeyPair(*cert, *key)
	check(err)
	host, err := tls.LoadX509KeyPair(*hostCert, *hostKey)
	check(err)
	clients, err := wire.Pool(*clientCA)
	check(err)
	s := &server{pingInterval: *interval, forward: *forward}
	s.tickets.Store(true)
	config := &tls.Config{
		Certificates: []tls.Certificate{web},
		ClientCAs:    clients,
		// Not "require": who comes without one is told apart later (passthrough, upgrade).
		ClientAuth: tls.VerifyClientCertIfGiven,
		MinVersion: tls.VersionTLS13,
	}
	both := []string{pingALPN, plainALPN}
	s.inner = s.configure(&tls.Config{
		Certificates: []tls.Certificate{host},
		ClientCAs:    clients,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
	}, append(both, "postgresql"))
	// What a Teleport Proxy knows besides: by it clients tell whether a balancer stands between.
	others := []string{"teleport-reversetunnel"}
	addresses := map[string]string{
		"ping":  s.listen(config, append(both, others...), s.command),
		"plain": s.listen(config, append(both[1:], others...), s.command),
	}
	if *forward != "" {
		addresses["forward"] = s.listen(config, append(both, others...), s.database)
	}
	answer(addresses)
	s.control()
}

// configure makes a configuration with these ALPN values that issues and takes tickets while it is to.
func (s *server) configure(base *tls.Config, alpn []string) *tls.Config {
	config := base.Clone()
	config.NextProtos = alpn
	without := config.Clone()
	without.SessionTicketsDisabled = true
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if s.tickets.Load() {
			return nil, nil
		}
		return without, nil
	}
	return config
}

// listen serves on a free port and returns its address.
func (s *server) listen(base *tls.Config, alpn []string, serve func(net.Conn) error) string {
	config := s.configure(base, alpn)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() {
		for {
			conn, err := listener.Accept()
			check(err)
			go s.connection(conn, config, serve)
		}
	}()
	return listener.Addr().String()
}

func (s *server) connection(raw net.Conn, config *tls.Config, serve func(net.Conn) error) {
	defer raw.Close()
	err := s.unwrap(raw, config, serve)
	var broken *net.OpError
	if err != nil && !errors.Is(err, io.EOF) && !errors.As(err, &broken) {
		log.Print(err)
	}
}

// unwrap does all handshakes and serves what is inside. Like a Teleport Proxy it closes the TLS connections
// that it has made, which says close_notify, once its client has ended.
func (s *server) unwrap(raw net.Conn, config *tls.Config, serve func(net.Conn) error) error {
	outer, state, err := s.handshake(raw, config)
	if err != nil {
		return err
	}
	defer outer.Close()
	if len(state.PeerCertificates) > 0 {
		return s.framed(outer, state, serve)
	}
	if state.NegotiatedProtocol == "" {
		upgraded, err := wire.AcceptUpgrade(outer)
		if err != nil {
			return err
		}
		inner, state, err := s.handshake(upgraded, s.inner)
		if err != nil {
			return err
		}
		defer inner.Close()
		return s.framed(inner, state, serve)
	}
	// The client's own TLS comes inside: passthrough.
	return s.framed(outer, state, func(conn net.Conn) error {
		packet, err := wire.ReadPacket(conn)
		if err != nil {
			return err
		}
		if !wire.IsSSLRequest(packet) {
			return errors.New("neither a client certificate nor an SSLRequest")
		}
		if _, err := conn.Write([]byte{'S'}); err != nil {
			return err
		}
		inner, _, err := s.handshake(conn, s.inner)
		if err != nil {
			return err
		}
		defer inner.Close()
		return serve(inner)
	})
}

func (s *server) handshake(conn net.Conn, config *tls.Config) (net.Conn, tls.ConnectionState, error) {
	secured := tls.Server(conn, config)
	_ = conn.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := secured.Handshake(); err != nil {
		return nil, tls.ConnectionState{}, fmt.Errorf("handshake: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	state := secured.ConnectionState()
	s.handshakes.Add(1)
	if state.DidResume {
		s.resumed.Add(1)
	}
	return secured, state, nil
}

func (s *server) framed(conn net.Conn, state tls.ConnectionState, serve func(net.Conn) error) error {
	if !strings.HasSuffix(state.NegotiatedProtocol, wire.PingSuffix) {
		return serve(conn)
	}
	framed := wire.NewPingConn(conn)
	stop := make(chan struct{})
	defer close(stop)
	go framed.Ping(s.pingInterval, stop)
	return serve(framed)
}

// command does what the StartupMessage says.
func (s *server) command(conn net.Conn) error {
	packet, err := wire.ReadPacket(conn)
	if err != nil {
		return err
	}
	command, err := wire.ParseCommand(packet)
	if err != nil {
		return err
	}
	if _, err := conn.Write(wire.AuthenticationOk); err != nil {
		return err
	}
	if command.Verb == "echo" {
		return echo(conn)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // wire.Go
		return err
	}
	switch command.Verb {
	case "sink":
		err = sink(conn, command.Bytes)
	case "source":
		err = wire.Send(conn, command.Bytes)
	case "both":
		sent := make(chan error, 1)
		go func() { sent <- wire.Send(conn, command.Bytes) }()
		if err = wire.Receive(conn, command.Bytes); err != nil {
			return err
		}
		if err = <-sent; err == nil {
			err = count(conn, command.Bytes)
		}
	default:
		err = fmt.Errorf("no such command: %q", command.Verb)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, conn) // until the client has it all and closes
	}
	return err
}

func echo(conn net.Conn) error {
	buffer := make([]byte, echoSize)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		if _, err := conn.Write(buffer[:n]); err != nil {
			return err
		}
	}
}

func sink(conn net.Conn, total int64) error {
	if err := wire.Receive(conn, total); err != nil {
		return err
	}
	return count(conn, total)
}

// count says how many bytes have come.
func count(conn net.Conn, total int64) error {
	_, err := conn.Write(binary.BigEndian.AppendUint64(nil, uint64(total)))
	return err
}

// database carries the connection to the real database.
func (s *server) database(conn net.Conn) error {
	behind, err := net.Dial("unix", s.forward)
	if err != nil {
		return err
	}
	defer behind.Close()
	var once sync.Once
	end := func() { once.Do(func() { behind.Close(); conn.Close() }) }
	go func() {
		_, _ = io.Copy(behind, conn)
		end()
	}()
	_, _ = io.Copy(conn, behind)
	end()
	return nil
}

// control answers commands until the input ends.
func (s *server) control() {
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		switch input.Text() {
		case "tickets on", "tickets off":
			s.tickets.Store(input.Text() == "tickets on")
			answer(map[string]bool{"tickets": s.tickets.Load()})
		case "stats":
			answer(map[string]int64{"handshakes": s.handshakes.Load(), "resumed": s.resumed.Load()})
		default:
			log.Fatalf("no such command: %q", input.Text())
		}
	}
}

func answer(value any) {
	check(json.NewEncoder(os.Stdout).Encode(value))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
