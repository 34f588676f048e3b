package dialer_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/dialer"
	"github.com/eclitunnel/eclitunnel/internal/linetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func handshake(ctx context.Context, d *dialer.Dialer, address string, config *tls.Config) (remote string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // Less than the head start over a failed address.
	defer cancel()
	ctx, attempt := d.Begin(ctx, address)
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		attempt.End(err)
		return "", err
	}
	defer conn.Close()
	remote, _, _ = net.SplitHostPort(conn.RemoteAddr().String())
	err = tls.Client(conn, config).HandshakeContext(ctx)
	attempt.End(err)
	return remote, err
}

func TestDialer_BeginsElsewhereAfterAFailureBeyondTheConnection(t *testing.T) {
	for name, broken := range linetest.Useless {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(nil)
			s.StartTLS() // Only for its certificate.
			defer s.Close()
			port := linetest.Listen(t, "127.0.0.3", 0, func(conn net.Conn) { _ = tls.Server(conn, s.TLS).Handshake() })
			afterHello := func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 1)) // A reset before could fail the connect itself.
				broken(conn)
			}
			linetest.Listen(t, "127.0.0.1", port, afterHello)
			linetest.Listen(t, "127.0.0.2", port, afterHello)
			d := dialer.New(dialer.Options{Resolver: linetest.Resolver(t, "127.0.0.1", "127.0.0.2", "127.0.0.3")})
			address := net.JoinHostPort("panel.test", strconv.Itoa(port))
			var tried []string
			for range 5 {
				remote, err := handshake(t.Context(), d, address, &tls.Config{InsecureSkipVerify: true})
				if works := remote == "127.0.0.3"; works != (err == nil) {
					t.Fatalf("%s: %v", remote, err)
				}
				tried = append(tried, remote)
			}
			if i := slices.Index(tried, "127.0.0.3"); i < 0 || i > 2 {
				t.Fatalf("tried %v: every address must have its turn", tried)
			} else if slices.ContainsFunc(tried[i:], func(a string) bool { return a != "127.0.0.3" }) {
				t.Errorf("tried %v: the one that works must be kept", tried)
			}
			// What shows only after the handshakes, such as a missing hello.
			d.Failed(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 3), Port: port})
			if remote, err := handshake(t.Context(), d, address, &tls.Config{InsecureSkipVerify: true}); remote == "127.0.0.3" {
				t.Errorf("went to %s (%v), which failed last", remote, err)
			}
		})
	}
}

// hosts is a network of addresses, each of which answers after a while, with an error
// or not. A negative delay is for ever.
type hosts map[string]struct {
	delay time.Duration
	err   error
}

func (h hosts) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	to := h[host]
	var answer <-chan time.Time
	if to.delay >= 0 {
		answer = time.After(to.delay)
	}
	select {
	case <-answer:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if to.err != nil {
		return nil, to.err
	}
	near, far := net.Pipe()
	_ = far.Close()
	a, err := net.ResolveTCPAddr(network, address)
	return pipe{near, a}, err
}

type pipe struct {
	net.Conn
	remote net.Addr
}

func (p pipe) RemoteAddr() net.Addr { return p.remote }

var errRefused = errors.New("refused")

func TestDialer_FindsTheAddressThatAccepts(t *testing.T) {
	const never = -1
	for name, test := range map[string]struct {
		hosts  hosts
		failed string // An address whose last connection was of no use.
		want   string
	}{
		"the next one is refused": {hosts: hosts{"::1": {err: errRefused}, "127.0.0.1": {err: errRefused}, "127.0.0.2": {}, "127.0.0.3": {delay: never}}, want: "127.0.0.2"},
		"many do not answer":      {hosts: hosts{"::1": {delay: never}, "127.0.0.1": {delay: never}, "127.0.0.2": {delay: never}, "127.0.0.3": {}}, want: "127.0.0.3"},
		"IPv6 does not answer":    {hosts: hosts{"::1": {delay: never}, "127.0.0.1": {}, "127.0.0.2": {}, "127.0.0.3": {}}, want: "127.0.0."},
		"a fast one was of no use": {
			hosts:  hosts{"::1": {}, "127.0.0.1": {delay: 700 * time.Millisecond}, "127.0.0.2": {delay: never}, "127.0.0.3": {delay: never}},
			failed: "::1", want: "127.0.0.1",
		},
		"only the one that was of no use is left": {
			hosts:  hosts{"::1": {}, "127.0.0.1": {err: errRefused}, "127.0.0.2": {err: errRefused}, "127.0.0.3": {err: errRefused}},
			failed: "::1", want: "::1",
		},
		"none": {hosts: hosts{"::1": {err: errRefused}, "127.0.0.1": {err: errRefused}, "127.0.0.2": {err: errRefused}, "127.0.0.3": {delay: never}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := dialer.New(dialer.Options{
				Dial:     test.hosts.dial,
				Resolver: linetest.Resolver(t, "127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"),
				Timeout:  4 * time.Second,
			})
			d.Failed(&net.TCPAddr{IP: net.ParseIP(test.failed), Port: 7})
			conn, err := d.DialContext(t.Context(), "tcp", "host.test:7")
			if test.want == "" {
				if !errors.Is(err, errRefused) {
					t.Errorf("got %v, want the first error", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			if len(host) < len(test.want) || host[:len(test.want)] != test.want {
				t.Errorf("connected to %s, want %s", host, test.want)
			}
		})
	}
}

func TestDialer_ACancelledAttemptIsNoFailure(t *testing.T) {
	h := hosts{"127.0.0.1": {}, "127.0.0.2": {}}
	d := dialer.New(dialer.Options{Dial: h.dial, Resolver: linetest.Resolver(t, "127.0.0.1", "127.0.0.2")})
	var first string
	for range 3 {
		ctx, attempt := d.Begin(t.Context(), "host.test:7")
		conn, err := d.DialContext(ctx, "tcp", "host.test:7")
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = conn.RemoteAddr().String()
		}
		if got := conn.RemoteAddr().String(); got != first {
			t.Errorf("connected to %s, want %s again", got, first)
		}
		attempt.End(fmt.Errorf("stop: %w", context.Canceled))
	}
}

func TestAttempt_IsNotOfAConnectionThatItsRequestDidNotUse(t *testing.T) {
	for name, secure := range map[string]bool{"HTTP": false, "HTTPS": true} {
		t.Run(name, func(t *testing.T) {
			const used, unused = "127.0.0.1", "127.0.0.2"
			requests, answer := make(chan struct{}), make(chan bool)
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				requests <- struct{}{}
				if !<-answer {
					panic(http.ErrAbortHandler)
				}
			}))
			if secure {
				s.StartTLS()
			} else {
				s.Start()
			}
			defer s.Close()
			port := s.Listener.Addr().(*net.TCPAddr).Port
			hello := make(chan struct{})
			linetest.Listen(t, unused, port, func(conn net.Conn) {
				if n, _ := conn.Read(make([]byte, 1)); n > 0 {
					close(hello)
				}
				linetest.Silent(conn)
			})

			// After the first, connections to the address that is used are never made, and
			// those to the other one as the test says.
			var first atomic.Bool
			first.Store(true)
			dialing, connect, connected := make(chan struct{}), make(chan struct{}), make(chan struct{})
			d := dialer.New(dialer.Options{
				Resolver: linetest.Resolver(t, used, unused),
				Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
					if !first.Swap(false) {
						if host, _, _ := net.SplitHostPort(address); host == used {
							<-ctx.Done()
							return nil, ctx.Err()
						}
						close(dialing)
						<-connect
					}
					return new(net.Dialer).DialContext(ctx, network, address)
				},
			})
			transport := &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := d.DialContext(ctx, network, address)
					if err == nil && conn.RemoteAddr().String() == net.JoinHostPort(unused, strconv.Itoa(port)) {
						close(connected)
					}
					return conn, err
				},
			}
			defer transport.CloseIdleConnections()
			host := net.JoinHostPort("panel.test", strconv.Itoa(port))
			url := strings.Replace(s.URL, s.Listener.Addr().String(), host, 1)
			post := func() <-chan error {
				done := make(chan error, 1)
				go func() {
					ctx, attempt := d.Begin(t.Context(), host)
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
					if err != nil {
						t.Error(err)
					}
					resp, err := transport.RoundTrip(req)
					if err == nil {
						_ = resp.Body.Close()
					}
					attempt.End(err)
					done <- err
				}()
				return done
			}

			one := post()
			await.Receive(t, requests, "request")
			two := post()
			await.Receive(t, dialing, "connection for the second request")
			answer <- true
			if err := await.Receive(t, one, "answer"); err != nil {
				t.Fatal(err)
			}
			await.Receive(t, requests, "second request on the first connection")
			close(connect)
			await.Receive(t, connected, "connection that nothing uses")
			if secure {
				await.Receive(t, hello, "TLS hello on it")
			}
			answer <- false
			if err := await.Receive(t, two, "end"); err == nil {
				t.Fatal("an answer")
			}

			ctx, attempt := d.Begin(t.Context(), host)
			if attempt.Classic(true) {
				t.Error("the hello of the unused connection counts as failed")
			}
			first.Store(true) // Whichever address is first is connected.
			conn, err := d.DialContext(ctx, "tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if remote := conn.RemoteAddr().(*net.TCPAddr).IP.String(); remote != unused {
				t.Errorf("the next attempt begins with %s, which failed", remote)
			}
		})
	}
}

func TestDialer_AsksNobodyWhatLocalhostMeans(t *testing.T) {
	// Where the resolver says, another machine answers.
	elsewhere := linetest.Resolver(t, "127.0.0.2", "127.0.0.3")
	for _, name := range []string{"localhost", "LOCALHOST.", "game.localhost", "a.Game.LocalHost."} {
		for network, want := range map[string][]string{
			"tcp": {"127.0.0.1", "::1"}, "udp": {"127.0.0.1", "::1"}, "tcp4": {"127.0.0.1"}, "udp6": {"::1"},
		} {
			var tried []string
			d := dialer.New(dialer.Options{
				Dial: func(_ context.Context, _, address string) (net.Conn, error) {
					host, _, _ := net.SplitHostPort(address)
					tried = append(tried, host)
					return nil, errRefused
				},
				Resolver: elsewhere,
			})
			if _, err := d.DialContext(t.Context(), network, name+":7"); !errors.Is(err, errRefused) {
				t.Errorf("%s %s: %v", network, name, err)
			}
			if !slices.Equal(tried, want) {
				t.Errorf("%s %s: dialled %v, want %v", network, name, tried, want)
			}
		}
	}
	d := dialer.New(dialer.Options{Resolver: elsewhere})
	if addresses, err := d.Lookup(t.Context(), "ip4", "localhost.test"); err != nil || len(addresses) != 2 {
		t.Errorf("localhost.test is %v (%v)", addresses, err)
	}
}
