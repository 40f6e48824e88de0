package wire

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
)

// PingSuffix ends the ALPN values that mean ping framing.
const PingSuffix = "-ping"

// PingConn frames a connection as Teleport does once a "-ping" ALPN value is negotiated: a big-endian
// length of four bytes, then so many bytes; a length of zero is a ping and carries nothing. Header and
// payload are two writes, as Teleport makes them.
type PingConn struct {
	net.Conn
	left    uint32
	header  [4]byte
	writing sync.Mutex
}

// NewPingConn wraps a connection whose both sides frame from now on.
func NewPingConn(conn net.Conn) *PingConn { return &PingConn{Conn: conn} }

// Read returns payload; pings are dropped.
func (c *PingConn) Read(p []byte) (int, error) {
	for c.left == 0 {
		if _, err := io.ReadFull(c.Conn, c.header[:]); err != nil {
			return 0, err
		}
		c.left = binary.BigEndian.Uint32(c.header[:])
	}
	if uint32(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= uint32(n)
	return n, err
}

// Write sends one frame; nothing at all when there is no payload, which would be a ping.
func (c *PingConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	var header [4]byte
	binary.BigEndian.PutUint32(header[:], uint32(len(p)))
	if _, err := c.Conn.Write(header[:]); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Ping sends pings at this interval until one cannot be sent or stop is closed.
func (c *PingConn) Ping(interval time.Duration, stop <-chan struct{}) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			c.writing.Lock()
			_, err := c.Conn.Write([]byte{0, 0, 0, 0})
			c.writing.Unlock()
			if err != nil {
				return
			}
		}
	}
}
