package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"dbproxy/bench/wire"
)

var echo = wire.Command{Verb: "echo"}

type bulkResult struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// bulk moves so many bytes over each connection and waits until they have all arrived.
func bulk(o options) (any, error) {
	verb, known := map[string]string{"up": "sink", "down": "source", "both": "both"}[o.direction]
	if !known {
		return nil, fmt.Errorf("no such direction: %q", o.direction)
	}
	conns, err := o.target.openAll(o.connections, wire.Command{Verb: verb, Bytes: o.bytes})
	if err != nil {
		return nil, err
	}
	pause("ready", nil)
	began := time.Now()
	err = each(len(conns), func(i int) error { return stream(conns[i], verb, o.bytes) })
	elapsed := time.Since(began)
	total := int64(len(conns)) * o.bytes
	if verb == "both" {
		total *= 2
	}
	return bulkResult{total, elapsed.Seconds()}, err
}

// stream moves what a command says over one connection.
func stream(conn net.Conn, verb string, total int64) error {
	if _, err := conn.Write([]byte{wire.Go}); err != nil {
		return err
	}
	sent := make(chan error, 1)
	if verb == "source" {
		return wire.Receive(conn, total)
	}
	go func() { sent <- wire.Send(conn, total) }()
	if verb == "both" {
		if err := wire.Receive(conn, total); err != nil {
			return err
		}
	}
	if err := readCount(conn, total); err != nil {
		return err
	}
	return <-sent
}

type roundTripResult struct {
	Count   int     `json:"count"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
}

// roundTrips lets every connection send a message and wait for its echo, again and again.
func roundTrips(o options) (any, error) {
	conns, err := o.target.openAll(o.connections, echo)
	if err != nil {
		return nil, err
	}
	if _, err := echoFor(conns, o.size, o.warmUpDuration()); err != nil {
		return nil, err
	}
	pause("ready", nil)
	return echoFor(conns, o.size, o.duration())
}

func echoFor(conns []net.Conn, size int, duration time.Duration) (roundTripResult, error) {
	times := make([][]time.Duration, len(conns))
	began := time.Now()
	end := began.Add(duration)
	err := each(len(conns), func(i int) error {
		answer := make([]byte, size)
		for n := int64(0); ; n++ {
			sent := time.Now()
			if sent.After(end) {
				return nil
			}
			if err := echoOnce(conns[i], wire.Payload(n*int64(size), size), answer); err != nil {
				return fmt.Errorf("round trip %d: %w", n, err)
			}
			times[i] = append(times[i], time.Since(sent))
		}
	})
	elapsed := time.Since(began)
	all := slices.Concat(times...)
	return roundTripResult{len(all), elapsed.Seconds(), percentile(all, 0.50), percentile(all, 0.99)}, err
}

func echoOnce(conn net.Conn, message, answer []byte) error {
	if _, err := conn.Write(message); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if !bytes.Equal(message, answer) {
		return fmt.Errorf("the echo differs")
	}
	return nil
}

// percentile in microseconds; it sorts.
func percentile(times []time.Duration, fraction float64) float64 {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return float64(times[int(float64(len(times)-1)*fraction)]) / float64(time.Microsecond)
}

// connect makes new connections, each until the upstream's first answer, and closes them.
func connect(o options) (any, error) {
	warm, err := o.target.openAll(o.connections, echo)
	if err != nil {
		return nil, err
	}
	for _, conn := range warm {
		conn.Close()
	}
	pause("ready", nil)
	times := make([][]time.Duration, o.connections)
	began := time.Now()
	end := began.Add(o.duration())
	err = each(o.connections, func(i int) error {
		for {
			dialled := time.Now()
			if dialled.After(end) {
				return nil
			}
			conn, err := o.target.open(echo)
			if err != nil {
				return err
			}
			times[i] = append(times[i], time.Since(dialled))
			conn.Close()
			if o.interval > 0 {
				time.Sleep(time.Until(dialled.Add(o.interval)))
			}
		}
	})
	elapsed := time.Since(began)
	all := slices.Concat(times...)
	return roundTripResult{len(all), elapsed.Seconds(), percentile(all, 0.50), percentile(all, 0.99)}, err
}

// idle holds connections that do nothing, ever more of them, and lets all of them echo once at the end.
func idle(o options) (any, error) {
	pause("ready", nil)
	var conns []net.Conn
	for _, text := range strings.Split(o.hold, ",") {
		count, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		more, err := o.target.openAll(count-len(conns), echo)
		if err != nil {
			return nil, err
		}
		conns = append(conns, more...)
		pause("held", map[string]int{"connections": count})
	}
	began := time.Now()
	err := each(len(conns), func(i int) error {
		return echoOnce(conns[i], wire.Payload(int64(i), o.size), make([]byte, o.size))
	})
	return map[string]any{"count": len(conns), "seconds": time.Since(began).Seconds()}, err
}

// beside measures small round trips on one connection while bulk streams run on others, half of them up
// and half of them down.
func beside(o options) (any, error) {
	const endless = 1 << 50
	var moved atomic.Int64
	small, err := o.target.open(echo)
	if err != nil {
		return nil, err
	}
	for i := range o.connections {
		verb := []string{"sink", "source"}[i%2]
		conn, err := o.target.open(wire.Command{Verb: verb, Bytes: endless})
		if err != nil {
			return nil, err
		}
		if _, err := conn.Write([]byte{wire.Go}); err != nil {
			return nil, err
		}
		counted := countingConn{conn, &moved}
		if verb == "sink" {
			go func() { _ = wire.Send(counted, endless) }()
		} else {
			go func() { _ = wire.Receive(counted, endless) }()
		}
	}
	one := []net.Conn{small}
	if _, err := echoFor(one, o.size, o.warmUpDuration()); err != nil {
		return nil, err
	}
	pause("ready", nil)
	before := moved.Load()
	result, err := echoFor(one, o.size, o.duration())
	return besideResult{result, moved.Load() - before}, err
}

type besideResult struct {
	roundTripResult
	Bytes int64 `json:"bytes"` // of the bulk streams, meanwhile
}

// countingConn counts what goes through it.
type countingConn struct {
	net.Conn
	moved *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.moved.Add(int64(n))
	return n, err
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.moved.Add(int64(n))
	return n, err
}

// readCount reads the upstream's word about how much it has got.
func readCount(conn net.Conn, want int64) error {
	var count [8]byte
	if _, err := io.ReadFull(conn, count[:]); err != nil {
		return err
	}
	if got := binary.BigEndian.Uint64(count[:]); got != uint64(want) {
		return fmt.Errorf("%d of %d bytes arrived", got, want)
	}
	return nil
}
