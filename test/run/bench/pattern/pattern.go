// Package pattern is the content that the bench sends: bytes that say where in
// a stream, or in which datagram, they belong, so that none can be lost, cut,
// repeated or moved unnoticed. Checking them is a comparison of memory, which
// costs far less than moving them.
package pattern

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// period is after how many bytes the pattern repeats: a prime, so that no
	// buffer's size, nor a multiple of it, is a multiple of the period.
	period = 131_071
	// MaxSlice is the most that Slice gives at a time.
	MaxSlice = 64 << 10
)

// ErrWrong is in every error about content that is not the pattern's.
var ErrWrong = errors.New("wrong content")

// table holds a period and enough of the next one that no slice has to wrap.
var table = func() []byte {
	t := make([]byte, period+MaxSlice)
	state := uint64(0x9e3779b97f4a7c15)
	for i := range period {
		// xorshift64: the same bytes in every process, with no two places alike.
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		t[i] = byte(state >> 32)
	}
	copy(t[period:], t)
	return t
}()

// Slice is the n bytes of a stream from position on, n being cut to MaxSlice.
// They are shared: nobody may write to them.
func Slice(position uint64, n int) []byte {
	start := int(position % period)
	return table[start : start+min(n, MaxSlice)]
}

// Check verifies bytes of a stream that begin at position.
func Check(data []byte, position uint64) error {
	for len(data) > 0 {
		want := Slice(position, len(data))
		if !bytes.Equal(data[:len(want)], want) {
			for i := range want {
				if data[i] != want[i] {
					return fmt.Errorf("%w: byte at position %d of the stream", ErrWrong, position+uint64(i))
				}
			}
		}
		position += uint64(len(want))
		data = data[len(want):]
	}
	return nil
}

// HeaderSize is the least size of a datagram in bytes: its flow and its number.
const HeaderSize = 16

// FillDatagram makes b the datagram with that number of a flow.
func FillDatagram(b []byte, flow, number uint64) {
	binary.LittleEndian.PutUint64(b, flow)
	binary.LittleEndian.PutUint64(b[8:], number)
	copy(b[HeaderSize:], Slice(datagramPosition(flow, number), len(b)-HeaderSize))
}

// CheckDatagram verifies that b is a datagram of size bytes of a flow, and
// returns its number.
func CheckDatagram(b []byte, size int, flow uint64) (number uint64, err error) {
	if len(b) != size {
		return 0, fmt.Errorf("%w: datagram of %d bytes, not %d", ErrWrong, len(b), size)
	}
	if got := binary.LittleEndian.Uint64(b); got != flow {
		return 0, fmt.Errorf("%w: datagram of flow %d on flow %d", ErrWrong, got, flow)
	}
	number = binary.LittleEndian.Uint64(b[8:])
	if err := Check(b[HeaderSize:], datagramPosition(flow, number)); err != nil {
		return 0, fmt.Errorf("datagram %d of flow %d: %w", number, flow, err)
	}
	return number, nil
}

func datagramPosition(flow, number uint64) uint64 { return flow*7919 + number*31 }
