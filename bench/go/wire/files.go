package wire

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Pool reads the certificates of authorities.
func Pool(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}

// ClientConfig is how a client of the upstream authenticates itself and what it trusts.
func ClientConfig(cert, key, ca string, alpn []string, resume bool) (*tls.Config, error) {
	pool, err := Pool(ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: alpn}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	if resume {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(64)
	}
	return config, nil
}
