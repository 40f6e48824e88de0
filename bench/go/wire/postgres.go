// Package wire has what the programs of the benchmark must agree about.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	protocolVersion = 3 << 16
	sslRequestCode  = 1234<<16 | 5679
	maxStartupSize  = 10_000
	commandPrefix   = "bench:"
)

// Go is the client's word to begin.
const Go = 'g'

// SSLRequest is PostgreSQL's question whether the server speaks TLS.
var SSLRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

// AuthenticationOk is what a server answers to a StartupMessage that needs no password.
var AuthenticationOk = []byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}

// Command is what the upstream is to do with a connection.
//
//	echo    send back whatever comes
//	sink    take Bytes bytes, then answer with their number, eight bytes big-endian
//	source  send Bytes bytes
//	both    the two at once
//
// All but echo begin with the byte Go from the client, so that it decides when.
type Command struct {
	Verb  string
	Bytes int64
}

// StartupMessage carries the command as a PostgreSQL client would carry its application's name, so
// that every proxy in between, also one that reads the protocol, carries it unchanged.
func (c Command) StartupMessage() []byte {
	body := binary.BigEndian.AppendUint32(nil, protocolVersion)
	for _, text := range []string{
		"user", "alice", "database", "example",
		"application_name", fmt.Sprintf("%s%s:%d", commandPrefix, c.Verb, c.Bytes),
	} {
		body = append(append(body, text...), 0)
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// ReadPacket reads one packet without a type byte, its length included.
func ReadPacket(r io.Reader) ([]byte, error) {
	packet := make([]byte, 4, 128)
	if _, err := io.ReadFull(r, packet); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(packet)
	if size < 8 || size > maxStartupSize {
		return nil, fmt.Errorf("a first packet of %d bytes", size)
	}
	packet = append(packet, make([]byte, size-4)...)
	_, err := io.ReadFull(r, packet[4:])
	return packet, err
}

// IsSSLRequest tells whether a first packet is one.
func IsSSLRequest(packet []byte) bool {
	return len(packet) == 8 && binary.BigEndian.Uint32(packet[4:]) == sslRequestCode
}

// ParseCommand finds the command in a StartupMessage.
func ParseCommand(packet []byte) (Command, error) {
	for _, text := range strings.Split(string(packet[8:]), "\x00") {
		rest, found := strings.CutPrefix(text, commandPrefix)
		if !found {
			continue
		}
		verb, number, _ := strings.Cut(rest, ":")
		bytes, err := strconv.ParseInt(number, 10, 64)
		return Command{verb, bytes}, err
	}
	return Command{}, errors.New("no command in the StartupMessage")
}
