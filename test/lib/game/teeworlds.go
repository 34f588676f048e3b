package game

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// Control packets of Teeworlds 0.7: a header with the receiver's token, the kind, and
// for kinds that reply to nobody known yet the sender's token and padding.
const (
	teeControl     = 1 << 2 // In the first byte of the header.
	teeConnect     = 1
	teeAccept      = 2
	teeClose       = 4
	teeToken       = 5
	teeHeader      = 7   // flags, acknowledgement, number of chunks, token
	teePadding     = 512 // Of requests from an unknown sender, so that answers are not longer.
	teeNoToken     = 0xffffffff
	teeworldsRetry = 500 * time.Millisecond
)

// RefusedError is a server's reason for not letting a player in.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return fmt.Sprintf("refused: %q", e.Reason) }

// JoinTeeworlds takes a slot of the Teeworlds 0.7 server that conn leads to, as a
// player does who connects. It returns a [*RefusedError] if the server does not let
// the player in, and gives up when ctx ends or after 10 s. The server frees the slot
// if it hears nothing from conn for ten seconds.
func JoinTeeworlds(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	mine, theirs := rand.Uint32()>>1, uint32(teeNoToken)
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		kind := byte(teeToken)
		if theirs != teeNoToken {
			kind = teeConnect
		}
		if _, err := conn.Write(teeworldsControl(kind, theirs, mine)); err != nil {
			return fmt.Errorf("join %s: %w", conn.RemoteAddr(), err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(teeworldsRetry)); err != nil {
			return fmt.Errorf("join %s: %w", conn.RemoteAddr(), err)
		}
		n, err := conn.Read(buf)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			continue
		}
		if err != nil {
			return fmt.Errorf("join %s: %w", conn.RemoteAddr(), err)
		}
		answer := buf[:n]
		if n <= teeHeader || answer[0]&teeControl == 0 || binary.BigEndian.Uint32(answer[3:]) != mine {
			continue // What the server sends to a player who is in.
		}
		switch body := answer[teeHeader+1:]; answer[teeHeader] {
		case teeToken:
			if len(body) >= 4 {
				theirs = binary.BigEndian.Uint32(body)
			}
		case teeAccept:
			return nil
		case teeClose:
			return &RefusedError{Reason: teeworldsReason(body)}
		}
	}
	return fmt.Errorf("join %s: no answer: %w", conn.RemoteAddr(), ctx.Err())
}

// AwaitTeeworldsClose waits until the server disconnects a player who has joined, and
// returns the reason it gives. It gives up after 10 s.
func AwaitTeeworldsClose(conn net.Conn) (reason string, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	for buf := make([]byte, 2048); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return "", fmt.Errorf("%s does not disconnect: %w", conn.RemoteAddr(), err)
		}
		if n > teeHeader && buf[0]&teeControl != 0 && buf[teeHeader] == teeClose {
			return teeworldsReason(buf[teeHeader+1 : n]), nil
		}
	}
}

func teeworldsReason(body []byte) string {
	reason, _, _ := bytes.Cut(body, []byte{0})
	return string(reason)
}

func teeworldsControl(kind byte, to, from uint32) []byte {
	b := []byte{teeControl, 0, 0}
	b = binary.BigEndian.AppendUint32(b, to)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, from)
	return append(b, make([]byte, teePadding-4)...)
}
