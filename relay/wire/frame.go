package wire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Opcode is the opcode of a WebSocket frame (RFC 6455 section 5.2).
type Opcode byte

// The opcodes of frames.
const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xa
)

// Control reports whether o is the opcode of a control frame.
func (o Opcode) Control() bool { return o >= OpClose }

const (
	// MaxFrameHeader is the longest header of a frame, in bytes.
	MaxFrameHeader = 2 + 8 + 4
	// MaxControlFrame is the longest payload of a control frame, in bytes.
	MaxControlFrame = 125
)

// The bits and numbers of a frame's first two bytes.
const (
	bitFinal  = 0x80
	bitMasked = 0x80
	length16  = 126
	length64  = 127
)

// Frame is the header of a WebSocket frame. The payload follows it on the wire.
type Frame struct {
	Opcode Opcode
	// Final marks the last frame of a message.
	Final bool
	// Masked marks a payload that has been masked with Key, as all payloads from client
	// to server are. A Key of zero leaves the payload unchanged.
	Masked bool
	Key    uint32
	// Length is the length of the payload, in bytes.
	Length int64
}

// AppendFrame appends the encoding of f, at most MaxFrameHeader bytes, to b and returns
// the extended buffer.
func AppendFrame(b []byte, f Frame) []byte {
	first, second := byte(f.Opcode), byte(0)
	if f.Final {
		first |= bitFinal
	}
	if f.Masked {
		second |= bitMasked
	}
	switch {
	case f.Length < length16:
		b = append(b, first, second|byte(f.Length))
	case f.Length <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, first, second|length16), uint16(f.Length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, first, second|length64), uint64(f.Length))
	}
	if f.Masked {
		b = binary.LittleEndian.AppendUint32(b, f.Key)
	}
	return b
}

// DecodeFrame decodes the header at the start of b and returns its length n in bytes. If
// b contains only a part of a header, n is 0 and the error is nil. Its errors wrap
// ErrMalformed. It does not allocate unless it fails.
func DecodeFrame(b []byte) (f Frame, n int, err error) {
	if len(b) < 2 {
		return Frame{}, 0, nil
	}
	f.Opcode = Opcode(b[0] & 0x0f)
	f.Final = b[0]&bitFinal != 0
	f.Masked = b[1]&bitMasked != 0
	if b[0]&0x70 != 0 || f.Opcode > OpBinary && f.Opcode < OpClose || f.Opcode > OpPong {
		return Frame{}, 0, fmt.Errorf("%w: first byte %#02x of a frame", ErrMalformed, b[0])
	}
	short := b[1] &^ bitMasked
	if f.Opcode.Control() && (!f.Final || short > MaxControlFrame) {
		return Frame{}, 0, fmt.Errorf("%w: control frame that is fragmented or too long", ErrMalformed)
	}
	n = 2
	shortest := int64(0)
	switch short {
	case length16:
		if n += 2; len(b) >= n {
			f.Length, shortest = int64(binary.BigEndian.Uint16(b[2:])), length16
		}
	case length64:
		if n += 8; len(b) >= n {
			// The most significant bit must be 0; otherwise Length is negative here.
			f.Length, shortest = int64(binary.BigEndian.Uint64(b[2:])), math.MaxUint16+1
		}
	default:
		f.Length = int64(short)
	}
	if f.Length < shortest {
		return Frame{}, 0, fmt.Errorf("%w: frame length not in its shortest form", ErrMalformed)
	}
	if f.Masked {
		if n += 4; len(b) >= n {
			f.Key = binary.LittleEndian.Uint32(b[n-4:])
		}
	}
	if len(b) < n {
		return Frame{}, 0, nil
	}
	return f, n, nil
}

// Mask masks or unmasks a part of a payload in place, as RFC 6455 section 5.3 defines it.
// offset is the position of the first byte of b in the payload.
func Mask(key uint32, offset int64, b []byte) {
	if key == 0 {
		return
	}
	turn := uint(offset&3) * 8
	key = key>>turn | key<<(32-turn)
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(wide >> (8 * i))
	}
}
