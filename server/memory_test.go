package server

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

func TestMemoryListener_BothEndsMayWriteAtOnce(t *testing.T) {
	l := newMemoryListener()
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	ours, err := l.DialContext(t.Context(), "tcp", "panel:80")
	if err != nil {
		t.Fatal(err)
	}
	theirs := <-accepted
	ends := []net.Conn{ours, theirs}
	// Neither end reads before both have written, as when each answers the
	// other's ping.
	for _, end := range ends {
		defer end.Close()
		_ = end.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(end, "pong"); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range ends {
		got := make([]byte, 4)
		if _, err := io.ReadFull(end, got); err != nil || !bytes.Equal(got, []byte("pong")) {
			t.Errorf("read %q, %v", got, err)
		}
	}
	l.Close()
	if _, err := l.DialContext(t.Context(), "tcp", "panel:80"); err == nil {
		t.Error("dialled a closed listener")
	}
}
