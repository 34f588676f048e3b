package webhooks

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

const (
	defaultTimeout = 10 * time.Second
	// dialTimeout bounds the connection to one address, so that another one gets a turn.
	dialTimeout = 4 * time.Second
	// maxDrained is how much of a response is read, so that its connection can be used again. Nothing of it is kept:
	// it could be what somebody else was not meant to read.
	maxDrained = 16 << 10
	// maxHeader bounds the header of a response.
	maxHeader = 16 << 10
	// maxRetryAfter bounds what a receiver can ask for.
	maxRetryAfter = time.Hour
)

// sender makes the requests.
type sender struct {
	opts   Options
	guard  guard
	dialer net.Dialer
	client http.Client
}

func newSender(opts Options) *sender {
	s := &sender{opts: opts, guard: guard{private: opts.PrivateTargets, own: net.InterfaceAddrs}}
	s.dialer = net.Dialer{Timeout: dialTimeout, Control: s.guard.control}
	s.client = http.Client{
		Transport: &http.Transport{
			// No proxy: it would connect to what the guard refuses.
			DialContext:         s.dial,
			ForceAttemptHTTP2:   true,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConns:        maxSending, MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// close closes idle connections.
func (s *sender) close() { s.client.CloseIdleConnections() }

// dial connects to one of the addresses of a host. It dials addresses, not the name, so that what was checked is what
// is connected to; the dialer checks once more.
func (s *sender) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addresses := []netip.Addr{}
	if literal, err := netip.ParseAddr(host); err == nil {
		addresses = append(addresses, literal)
	} else if addresses, err = s.opts.Lookup(ctx, host); err != nil {
		return nil, err
	}
	refused := errTarget
	var failed error
	for _, a := range addresses {
		if err := s.guard.check(a); err != nil {
			refused = err
			continue
		}
		conn, err := s.dialer.DialContext(ctx, network, net.JoinHostPort(a.Unmap().String(), port))
		if err == nil {
			return conn, nil
		}
		failed = err
	}
	if failed != nil {
		return nil, failed
	}
	return nil, refused
}

// outcome is what came of an attempt.
type outcome struct {
	attempt    db.WebhookAttempt
	gone       bool          // The receiver wants no more messages, ever.
	retryAfter time.Duration // What the receiver asks for.
}

// send sends a message once.
func (s *sender) send(ctx context.Context, webhook db.Webhook, delivery db.WebhookDelivery) outcome {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	started := time.Now()
	o := s.request(ctx, webhook, delivery)
	o.attempt.Duration, o.attempt.At = time.Since(started), s.opts.Now()
	return o
}

func (s *sender) request(ctx context.Context, webhook db.Webhook, delivery db.WebhookDelivery) outcome {
	failure := func(text string) outcome { return outcome{attempt: db.WebhookAttempt{Error: text}} }
	r, err := s.newRequest(ctx, webhook, delivery)
	if err != nil {
		return failure("the message could not be made")
	}
	response, err := s.client.Do(r)
	if err != nil {
		return failure(explain(err))
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxDrained))
	o := outcome{gone: response.StatusCode == http.StatusGone, retryAfter: retryAfter(response)}
	o.attempt.Status = &response.StatusCode
	switch {
	case response.StatusCode < 200:
		o.attempt.Error = fmt.Sprintf("the receiver answered %d", response.StatusCode)
	case response.StatusCode < 300:
	case response.StatusCode < 400:
		o.attempt.Error = fmt.Sprintf("the receiver answered %d; redirects are not followed", response.StatusCode)
	default:
		o.attempt.Error = fmt.Sprintf("the receiver answered %d", response.StatusCode)
	}
	return o
}

func (s *sender) newRequest(ctx context.Context, webhook db.Webhook, delivery db.WebhookDelivery) (*http.Request, error) {
	content, err := format(types.WebhookFormat(webhook.Format), webhook.URL, []byte(delivery.Payload))
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, content.url, bytes.NewReader(content.body))
	if err != nil {
		return nil, err
	}
	now := s.opts.Now()
	signature, err := signatures(webhook, delivery.MessageID, now, content.body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "EcliTunnel-Webhooks/"+s.opts.Version)
	r.Header.Set(headerID, delivery.MessageID)
	r.Header.Set(headerTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(headerSignature, signature)
	return r, nil
}

// explain says in a few words why there was no response. It quotes nothing, because errors contain the URL.
func explain(err error) string {
	var lookup *net.DNSError
	var certificate *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case errors.Is(err, errTarget):
		return errTarget.Error()
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return "the host does not exist"
	case errors.As(err, &lookup):
		return "the host could not be looked up"
	case errors.As(err, &certificate):
		return "the certificate is not valid for the host"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "the receiver did not answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	case errors.Is(err, context.Canceled):
		return "the panel stopped"
	default:
		return "the connection failed"
	}
}

// retryAfter returns what a response asks for in seconds, as Discord does.
func retryAfter(response *http.Response) time.Duration {
	seconds, err := strconv.ParseFloat(response.Header.Get("Retry-After"), 64)
	if err != nil || seconds <= 0 {
		return 0
	}
	return min(maxRetryAfter, time.Duration(min(seconds, maxRetryAfter.Seconds())*float64(time.Second)))
}
