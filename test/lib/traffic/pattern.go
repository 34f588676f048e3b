package traffic

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// The content that is sent is bytes that say where in a stream, or in which
// datagram, they belong, so that none can be lost, cut, repeated or moved
// unnoticed. Checking them is a comparison of memory, which costs far less than
// moving them.
const (
	// period is after how many bytes the pattern repeats: a prime, so that no
	// buffer's size, nor a multiple of it, is a multiple of the period.
	period = 131_071
	// maxSlice is the most that slice gives at a time.
	maxSlice = 64 << 10
	// headerSize is the least size of a datagram in bytes: its flow and its number.
	headerSize = 16
)

// ErrWrong is in every error about content that is not the pattern's.
var ErrWrong = errors.New("wrong content")

// table holds a period and enough of the next one that no slice has to wrap.
var table = func() []byte {
	t := make([]byte, period+maxSlice)
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

// slice is the n bytes of a stream from position on, n being cut to maxSlice.
// They are shared: callers must not modify them.
func slice(position uint64, n int) []byte {
	start := int(position % period)
	return table[start : start+min(n, maxSlice)]
}

// check verifies bytes of a stream that begin at position.
func check(data []byte, position uint64) error {
	for len(data) > 0 {
		want := slice(position, len(data))
		if !bytes.Equal(data[:len(want)], want) {
			return fmt.Errorf("%w: within %d bytes from position %d of the stream", ErrWrong, len(want), position)
		}
		position += uint64(len(want))
		data = data[len(want):]
	}
	return nil
}

// fillDatagram makes b the datagram with that number of a flow.
func fillDatagram(b []byte, flow, number uint64) {
	binary.LittleEndian.PutUint64(b, flow)
	binary.LittleEndian.PutUint64(b[8:], number)
	copy(b[headerSize:], slice(datagramPosition(flow, number), len(b)-headerSize))
}

// checkDatagram verifies that b is a datagram of size bytes of a flow, and
// returns its number.
func checkDatagram(b []byte, size int, flow uint64) (number uint64, err error) {
	if len(b) != size {
		return 0, fmt.Errorf("%w: datagram of %d bytes, not %d", ErrWrong, len(b), size)
	}
	if got := binary.LittleEndian.Uint64(b); got != flow {
		return 0, fmt.Errorf("%w: datagram of flow %d on flow %d", ErrWrong, got, flow)
	}
	number = binary.LittleEndian.Uint64(b[8:])
	if err := check(b[headerSize:], datagramPosition(flow, number)); err != nil {
		return 0, fmt.Errorf("datagram %d of flow %d: %w", number, flow, err)
	}
	return number, nil
}

func datagramPosition(flow, number uint64) uint64 { return flow*7919 + number*31 }
