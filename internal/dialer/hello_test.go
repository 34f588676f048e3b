package dialer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/internal/dialer"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
)

// tlsHost is a host behind a filter of hellos.
func tlsHost(t *testing.T, reset bool) *linetest.HelloFilter {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	return linetest.FilterHellos(t, s.Listener.Addr().String(), reset)
}

// shake opens a WebSocket, which the host refuses: that it does shows that the hello
// passed. It reports that, and whether the hello was classic.
func shake(t *testing.T, d *dialer.Dialer, address string, probe bool) (passed, classic bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	ctx, attempt := d.Begin(ctx, address)
	w := websocket.Dialer{NetDialContext: d.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if classic = attempt.Classic(probe); classic {
		w.TLSClientConfig = dialer.ClassicTLS(w.TLSClientConfig)
	}
	_, _, err := w.DialContext(ctx, "wss://"+address, nil)
	attempt.End(err)
	return errors.Is(err, websocket.ErrBadHandshake), classic
}

func TestAttempt_FallsBackToAClassicHelloAndKeepsIt(t *testing.T) {
	for name, reset := range map[string]bool{"swallowed": false, "reset": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := tlsHost(t, reset)
			d := dialer.New(dialer.Options{ModernInterval: time.Nanosecond})
			if passed, classic := shake(t, d, f.Address, true); passed || classic {
				t.Fatalf("a modern hello passed: %t, classic %t", passed, classic)
			}
			for range 3 { // Those that must not wait never risk another modern one.
				if passed, classic := shake(t, d, f.Address, false); !passed || !classic {
					t.Fatalf("passed %t, classic %t", passed, classic)
				}
			}
			if passed, classic := shake(t, d, f.Address, true); passed || classic {
				t.Errorf("the modern hello was due: passed %t, classic %t", passed, classic)
			}
			if passed, classic := shake(t, d, f.Address, false); !passed || !classic {
				t.Errorf("after a probe that failed: passed %t, classic %t", passed, classic)
			}
			f.Off()
			for range 2 {
				if passed, classic := shake(t, d, f.Address, true); !passed || classic {
					t.Errorf("the filter is gone: passed %t, classic %t", passed, classic)
				}
			}
		})
	}
}

// at is a connection from another address of this machine.
type at struct{ net.Conn }

func (at) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

func TestAttempt_TriesTheModernHelloOnAnotherNetwork(t *testing.T) {
	f := tlsHost(t, true)
	addresses := []net.Addr{&net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}
	d := dialer.New(dialer.Options{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return at{conn}, err
		},
		Addresses: func() ([]net.Addr, error) { return addresses, nil },
	})
	for i := range 4 {
		if passed, classic := shake(t, d, f.Address, true); classic != (i > 0) || passed != classic {
			t.Errorf("attempt %d: passed %t, classic %t", i, passed, classic)
		}
	}
	addresses = []net.Addr{&net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(24, 32)}}
	if passed, classic := shake(t, d, f.Address, true); passed || classic {
		t.Errorf("on another network: passed %t, classic %t", passed, classic)
	}
}

func TestAttempt_HostsThatAnswerOrAreDownKeepTheModernHello(t *testing.T) {
	d := dialer.New(dialer.Options{})
	t.Run("another protocol", func(t *testing.T) {
		port := linetest.Listen(t, "127.0.0.1", 0, linetest.Useless["garbled"])
		address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
		for range 3 {
			if _, classic := shake(t, d, address, true); classic {
				t.Error("a classic hello to a host that answered")
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		for range 3 {
			if _, classic := shake(t, d, "127.0.0.1:1", true); classic {
				t.Error("a classic hello to a host without a connection")
			}
		}
	})
	t.Run("down", func(t *testing.T) {
		port := linetest.Listen(t, "127.0.0.1", 0, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 4096))
			linetest.Useless["resetting"](conn)
		})
		address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
		for i := range 6 {
			if _, classic := shake(t, d, address, true); classic != (i%2 == 1) {
				t.Errorf("attempt %d: classic %t", i, classic)
			}
		}
	})
}

// resume is shake with a short hello as of a session that is resumed.
func resume(t *testing.T, d *dialer.Dialer, address string) (passed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	ctx, attempt := d.Begin(ctx, address)
	attempt.Resumes()
	w := websocket.Dialer{NetDialContext: d.DialContext, TLSClientConfig: dialer.ClassicTLS(&tls.Config{InsecureSkipVerify: true})}
	_, _, err := w.DialContext(ctx, "wss://"+address, nil)
	attempt.End(err)
	return errors.Is(err, websocket.ErrBadHandshake)
}

func TestAttempt_ResumedSessionsSayNothingAboutHellos(t *testing.T) {
	t.Run("failing", func(t *testing.T) {
		port := linetest.Listen(t, "127.0.0.1", 0, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 4096))
			linetest.Useless["resetting"](conn)
		})
		address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String()
		d := dialer.New(dialer.Options{})
		for range 3 {
			if resume(t, d, address) {
				t.Fatal("it passed")
			}
		}
		if _, classic := shake(t, d, address, false); classic {
			t.Error("a classic hello although no modern one has failed")
		}
	})
	t.Run("passing", func(t *testing.T) {
		f := tlsHost(t, true)
		d := dialer.New(dialer.Options{})
		if passed, _ := shake(t, d, f.Address, true); passed {
			t.Fatal("a modern hello passed")
		}
		if !resume(t, d, f.Address) {
			t.Fatal("a short hello did not pass")
		}
		if passed, classic := shake(t, d, f.Address, false); !passed || !classic {
			t.Errorf("after that: passed %t, classic %t", passed, classic)
		}
	})
}
