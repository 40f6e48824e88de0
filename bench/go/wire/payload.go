package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

const (
	// ChunkSize is what io.Copy reads and writes at once.
	ChunkSize = 32 << 10
	readSize  = 64 << 10
	period    = 262_139 // prime, so that a chunk that is lost or doubled shows up
)

var pattern = func() []byte {
	source := rand.NewPCG(1, 2)
	data := make([]byte, 0, period+readSize+8)
	for len(data) < period {
		data = binary.BigEndian.AppendUint64(data, source.Uint64())
	}
	data = data[:period]
	return append(data, data[:readSize]...)
}()

// Payload returns size bytes (64 KiB at most) of the stream that both ends know.
func Payload(offset int64, size int) []byte {
	start := int(offset % period)
	return pattern[start : start+size]
}

// Send writes so many bytes of the known stream.
func Send(w io.Writer, total int64) error {
	for sent := int64(0); sent < total; {
		size := min(ChunkSize, total-sent)
		if _, err := w.Write(Payload(sent, int(size))); err != nil {
			return err
		}
		sent += size
	}
	return nil
}

// Receive reads so many bytes and compares every one with the known stream.
func Receive(r io.Reader, total int64) error {
	buffer := make([]byte, readSize)
	for received := int64(0); received < total; {
		n, err := r.Read(buffer[:min(readSize, total-received)])
		if !bytes.Equal(buffer[:n], Payload(received, n)) {
			return fmt.Errorf("the payload is damaged after %d bytes", received)
		}
		received += int64(n)
		if err != nil && received < total {
			return fmt.Errorf("the end came after %d of %d bytes: %w", received, total, err)
		}
	}
	return nil
}
