package wire_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

func TestFrame_EncodesEveryHeader(t *testing.T) {
	for _, length := range []int64{0, 1, 125, 126, 127, math.MaxUint16, math.MaxUint16 + 1, wire.MaxStreamMessage, math.MaxInt64} {
		for _, want := range []wire.Frame{
			{Opcode: wire.OpBinary, Final: true, Length: length},
			{Opcode: wire.OpText, Final: true, Masked: true, Length: length},
			{Opcode: wire.OpContinuation, Masked: true, Key: 0xdeadbeef, Length: length},
		} {
			b := wire.AppendFrame(nil, want)
			if len(b) > wire.MaxFrameHeader {
				t.Errorf("%+v took %d bytes", want, len(b))
			}
			for i := range b {
				if _, n, err := wire.DecodeFrame(b[:i]); n != 0 || err != nil {
					t.Errorf("%+v, %d of %d bytes: took %d, %v", want, i, len(b), n, err)
				}
			}
			if got, n, err := wire.DecodeFrame(append(b, "payload"...)); got != want || n != len(b) || err != nil {
				t.Errorf("got %+v of %d bytes (%v), want %+v of %d", got, n, err, want, len(b))
			}
		}
	}
}

func TestFrame_RejectsMalformedHeaders(t *testing.T) {
	for name, b := range map[string][]byte{
		"reserved bit":        {0xc2, 0x00},
		"unknown data kind":   {0x83, 0x00},
		"unknown control":     {0x8b, 0x00},
		"fragmented control":  {0x09, 0x00},
		"long control":        {0x89, 126, 0, 126},
		"16 bits for 125":     {0x82, 126, 0, 125},
		"64 bits for 65535":   {0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff},
		"length beyond 2**63": {0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, _, err := wire.DecodeFrame(b); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: error %v, want ErrMalformed", name, err)
		}
	}
}

func TestMask_FollowsTheStandardForEveryPartOfAPayload(t *testing.T) {
	// RFC 6455 section 5.7: a masked "Hello".
	frame := []byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}
	f, n, err := wire.DecodeFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range 6 {
		text := bytes.Clone(frame[n:])
		wire.Mask(f.Key, 0, text[:cut])
		wire.Mask(f.Key, int64(cut), text[cut:])
		if string(text) != "Hello" {
			t.Errorf("split at %d: %q", cut, text)
		}
	}
	long := bytes.Repeat([]byte("abcdefg"), 11)
	whole, parts := bytes.Clone(long), bytes.Clone(long)
	wire.Mask(f.Key, 0, whole)
	for i := 0; i < len(parts); i += 13 {
		wire.Mask(f.Key, int64(i), parts[i:min(i+13, len(parts))])
	}
	if bytes.Equal(whole, long) || !bytes.Equal(whole, parts) {
		t.Error("masking in parts differs from masking the whole")
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0x82, 0x05, 'h', 'e', 'l', 'l', 'o'})
	f.Add([]byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58})
	f.Add([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, n, err := wire.DecodeFrame(b)
		if n > len(b) || n > wire.MaxFrameHeader || (err != nil && n != 0) || frame.Length < 0 {
			t.Fatalf("%x: %+v of %d bytes, %v", b, frame, n, err)
		}
		if n > 0 && !bytes.Equal(wire.AppendFrame(nil, frame), b[:n]) {
			t.Errorf("%x became %x", b[:n], wire.AppendFrame(nil, frame))
		}
	})
}
