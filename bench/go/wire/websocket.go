package wire

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

const (
	upgradePath   = "/webapi/connectionupgrade"
	websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	opBinary      = 2
	opClose       = 8
	finBit        = 0x80
	maskBit       = 0x80
)

// WebSocketConn is the server's side of an upgraded connection: a stream in binary frames, one for
// each write, unmasked; those of the client are masked. Every opcode but binary and close is dropped.
type WebSocketConn struct {
	net.Conn
	reader *bufio.Reader
	left   uint64
	mask   [4]byte
	offset int
}

// AcceptUpgrade answers the connection upgrade of Teleport's clients behind an HTTP load balancer.
func AcceptUpgrade(conn net.Conn) (*WebSocketConn, error) {
	reader := bufio.NewReaderSize(conn, 32<<10)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return nil, err
	}
	subprotocol := request.Header.Get("Sec-WebSocket-Protocol")
	if request.URL.Path != upgradePath || !strings.EqualFold(request.Header.Get("Upgrade"), "websocket") {
		_, _ = io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
		return nil, fmt.Errorf("not a connection upgrade: %s", request.URL.Path)
	}
	digest := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + websocketGUID))
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"+
		"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(digest[:]), subprotocol)
	return &WebSocketConn{Conn: conn, reader: reader}, err
}

func (c *WebSocketConn) Read(p []byte) (int, error) {
	for c.left == 0 {
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
	}
	if uint64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.reader.Read(p)
	if c.mask != [4]byte{} { // Teleport's clients mask with zeros
		for i := range p[:n] {
			p[i] ^= c.mask[(c.offset+i)%4]
		}
		c.offset += n
	}
	c.left -= uint64(n)
	return n, err
}

func (c *WebSocketConn) nextFrame() error {
	for {
		var head [2]byte
		if _, err := io.ReadFull(c.reader, head[:]); err != nil {
			return err
		}
		size := uint64(head[1] &^ maskBit)
		var extended [8]byte
		switch size {
		case 126:
			if _, err := io.ReadFull(c.reader, extended[6:]); err != nil {
				return err
			}
			size = binary.BigEndian.Uint64(extended[:])
		case 127:
			if _, err := io.ReadFull(c.reader, extended[:]); err != nil {
				return err
			}
			size = binary.BigEndian.Uint64(extended[:])
		}
		c.mask, c.offset = [4]byte{}, 0
		if head[1]&maskBit != 0 {
			if _, err := io.ReadFull(c.reader, c.mask[:]); err != nil {
				return err
			}
		}
		switch head[0] & 0x0f {
		case opBinary:
			c.left = size
			return nil
		case opClose:
			return io.EOF
		}
		if _, err := io.CopyN(io.Discard, c.reader, int64(size)); err != nil {
			return err
		}
	}
}

func (c *WebSocketConn) Write(p []byte) (int, error) {
	frame := []byte{finBit | opBinary}
	switch {
	case len(p) < 126:
		frame = append(frame, byte(len(p)))
	case len(p) < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(len(p)))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(len(p)))
	}
	if _, err := c.Conn.Write(append(frame, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}
