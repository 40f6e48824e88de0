package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"dbproxy/bench/wire"
)

const patience = 60 * time.Second

// target is what connections are made to.
type target struct {
	address string
	tls     string
	config  *tls.Config
}

// open connects, says the command, and waits until the upstream has answered it.
func (t target) open(command wire.Command) (net.Conn, error) {
	raw, err := net.DialTimeout("tcp", t.address, patience)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(patience))
	conn, err := t.start(raw, command)
	if err != nil {
		raw.Close()
		return nil, err
	}
	_ = raw.SetDeadline(time.Time{})
	return conn, nil
}

func (t target) start(raw net.Conn, command wire.Command) (net.Conn, error) {
	conn, err := t.secure(raw)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(command.StartupMessage()); err != nil {
		return nil, err
	}
	answer := make([]byte, len(wire.AuthenticationOk))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, fmt.Errorf("no answer to the StartupMessage: %w", err)
	}
	if !bytes.Equal(answer, wire.AuthenticationOk) {
		return nil, fmt.Errorf("refused: %q", answer)
	}
	return conn, nil
}

func (t target) secure(raw net.Conn) (net.Conn, error) {
	switch t.tls {
	case "none":
		return raw, nil
	case "postgres":
		if _, err := raw.Write(wire.SSLRequest); err != nil {
			return nil, err
		}
		answer := make([]byte, 1)
		if _, err := io.ReadFull(raw, answer); err != nil {
			return nil, err
		}
		if answer[0] != 'S' {
			return nil, fmt.Errorf("the SSLRequest was answered with %q", answer)
		}
	}
	conn := tls.Client(raw, t.config)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	if strings.HasSuffix(conn.ConnectionState().NegotiatedProtocol, wire.PingSuffix) {
		return wire.NewPingConn(conn), nil
	}
	return conn, nil
}

// openAll opens so many connections, some at once.
func (t target) openAll(count int, command wire.Command) ([]net.Conn, error) {
	const atOnce = 32
	conns := make([]net.Conn, count)
	err := each(min(atOnce, count), func(worker int) error {
		for i := worker; i < count; i += atOnce {
			conn, err := t.open(command)
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			conns[i] = conn
		}
		return nil
	})
	return conns, err
}

// each runs the function so many times at once and returns the first error.
func each(count int, do func(int) error) error {
	results := make(chan error, count)
	for i := range count {
		go func() { results <- do(i) }()
	}
	var first error
	for range count {
		if err := <-results; err != nil && first == nil {
			first = err
		}
	}
	return first
}
