package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// healthInterval is how often the balancer asks each replica whether it is
	// ready: often enough to notice within a shutdown grace of a second.
	healthInterval = 100 * time.Millisecond
	healthTimeout  = time.Second
	controlChannel = "/api/tunnel/ws"
	// maxBody is more than any request's body here, in bytes.
	maxBody = 1 << 20
)

// BalancerOptions say how a load balancer works.
type BalancerOptions struct {
	// Listen is its address, host:port; port 0 picks a free one.
	Listen string
	// Replicas are the addresses of the panels.
	Replicas []string
	// Retry sends a request whose connection is refused to the next replica, and
	// opens a connection for each request. Without it a refused connection fails
	// the request, so that a replica which stops must have said so in time, and
	// connections to replicas are kept open.
	Retry bool
}

// Balancer is an HTTP load balancer as stands before replicas of the panel. It
// sends requests in turn to those that are ready by their /readyz, and notes on
// which replica each device's control channel is.
type Balancer struct {
	options   BalancerOptions
	transport *http.Transport
	probes    *http.Client
	listener  net.Listener
	server    *http.Server
	cancel    context.CancelFunc
	done      sync.WaitGroup

	mu    sync.Mutex
	ready []bool
	next  int
	on    map[uuid.UUID]int
}

// StartBalancer starts a load balancer. It runs until Close, whatever becomes of ctx.
func StartBalancer(ctx context.Context, o BalancerOptions) (*Balancer, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, err
	}
	dial := (&net.Dialer{Timeout: 2 * time.Second}).DialContext
	b := &Balancer{
		options: o, listener: listener,
		transport: &http.Transport{
			DisableKeepAlives: o.Retry, DialContext: dial,
			MaxIdleConnsPerHost: 32, ResponseHeaderTimeout: 30 * time.Second,
		},
		probes: &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}, Timeout: healthTimeout},
		ready:  make([]bool, len(o.Replicas)),
		on:     map[uuid.UUID]int{},
	}
	discard := slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	b.server = &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.Out.URL.Scheme, r.Out.URL.Host = "http", "panel"
				r.Out.Host = r.In.Host
				r.SetXForwarded()
			},
			Transport: b,
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				http.Error(w, err.Error(), http.StatusBadGateway)
			},
			ErrorLog: discard,
		},
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          discard,
	}
	probing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	for i := range o.Replicas {
		b.done.Go(func() { b.probe(probing, i) })
	}
	b.done.Go(func() {
		//nolint:errcheck // Close ends it
		b.server.Serve(listener)
	})
	return b, nil
}

// Addr is where it listens.
func (b *Balancer) Addr() string { return b.listener.Addr().String() }

// Close stops it and cuts off every request.
func (b *Balancer) Close() error {
	b.cancel()
	err := b.server.Close()
	b.done.Wait()
	b.transport.CloseIdleConnections()
	return err
}

// probe asks a replica again and again whether it is ready.
func (b *Balancer) probe(ctx context.Context, i int) {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		ready := false
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.options.Replicas[i]+"/readyz", nil)
		if err == nil {
			var answer *http.Response
			if answer, err = b.probes.Do(request); err == nil {
				answer.Body.Close()
				ready = answer.StatusCode == http.StatusOK
			}
		}
		b.mu.Lock()
		b.ready[i] = ready
		b.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Ready are the replicas that requests go to, the one whose turn it is first.
func (b *Balancer) Ready() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	var found []int
	for i := range b.ready {
		if n := (b.next + i) % len(b.ready); b.ready[n] {
			found = append(found, n)
		}
	}
	return found
}

// RoundTrip implements http.RoundTripper for the proxy.
func (b *Balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxBody)); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	err := errors.New("no replica of the panel is ready")
	for _, i := range b.Ready() {
		try := r.Clone(r.Context())
		try.URL.Host = b.options.Replicas[i]
		if r.Body != nil {
			try.Body = io.NopCloser(bytes.NewReader(body))
		}
		var answer *http.Response
		answer, err = b.transport.RoundTrip(try)
		if err == nil {
			if answer.StatusCode == http.StatusSwitchingProtocols && r.URL.Path == controlChannel {
				b.note(deviceOf(r), i)
			}
			return answer, nil
		}
		var op *net.OpError
		if !b.options.Retry || !errors.As(err, &op) || op.Op != "dial" {
			break // The request may have been carried out.
		}
	}
	return nil, err
}

func (b *Balancer) note(device uuid.UUID, replica int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on[device] = replica
}

// ReplicaOf is where a device's control channel was last opened.
func (b *Balancer) ReplicaOf(device uuid.UUID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.on[device]
}

// deviceOf reads a device token's subject; the panel checks whether it is valid.
func deviceOf(r *http.Request) uuid.UUID {
	parts := strings.Split(r.Header.Get("Authorization"), ".")
	if len(parts) != 3 {
		return uuid.Nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return uuid.Nil
	}
	var claims struct {
		Subject uuid.UUID `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return uuid.Nil
	}
	return claims.Subject
}
