package traffic

import (
	"bytes"
	"testing"
)

// stream is n bytes of the pattern from position on, in memory of its own.
func stream(position uint64, n int) []byte {
	var b []byte
	for len(b) < n {
		b = append(b, slice(position+uint64(len(b)), n-len(b))...)
	}
	return b
}

func TestCheck_TakesAStreamCutAnywhere(t *testing.T) {
	data := stream(0, 1<<20)
	for position, step := 0, 1; position < len(data); step = step*3 + 1 {
		end := min(position+step, len(data))
		if err := check(data[position:end], uint64(position)); err != nil {
			t.Fatal(err)
		}
		position = end
	}
}

func TestCheck_FindsWhatTunnelsDoToStreams(t *testing.T) {
	const at = 200_000
	whole := stream(0, 1<<20)
	flipped := bytes.Clone(whole)
	flipped[at] ^= 1
	for name, data := range map[string][]byte{
		"a flipped bit":      flipped,
		"a lost byte":        append(bytes.Clone(whole[:at]), whole[at+1:]...),
		"a lost chunk":       append(bytes.Clone(whole[:at]), whole[at+32<<10:]...),
		"a chunk repeated":   append(bytes.Clone(whole[:at]), whole[at-64<<10:]...),
		"two chunks swapped": append(append(bytes.Clone(whole[:at]), whole[at+4096:at+8192]...), whole[at:at+4096]...),
	} {
		if err := check(data, 0); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func TestCheckDatagram_FindsWhatTunnelsDoToDatagrams(t *testing.T) {
	const size, flow, number = 200, 3, 41
	whole := make([]byte, size)
	fillDatagram(whole, flow, number)
	if got, err := checkDatagram(whole, size, flow); err != nil || got != number {
		t.Fatalf("got %d, %v", got, err)
	}
	flipped := bytes.Clone(whole)
	flipped[size-1] ^= 1
	for name, data := range map[string][]byte{
		"cut":              whole[:size-1],
		"joined":           append(bytes.Clone(whole), whole...),
		"a flipped bit":    flipped,
		"of another flow":  append([]byte{4}, whole[1:]...),
		"another's number": append(append(bytes.Clone(whole[:8]), 42), whole[9:]...),
	} {
		if _, err := checkDatagram(data, size, flow); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}
