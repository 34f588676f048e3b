package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

const (
	// maxAnswer bounds what is read of an agent, and maxLine a snapshot, in bytes.
	maxAnswer, maxLine = 16 << 20, 16 << 20
	askTimeout         = 10 * time.Second
)

// Client talks to a running agent of this machine. It is safe for concurrent use.
type Client struct {
	transport *http.Transport
}

func newClient(path string) *Client {
	return &Client{transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		DisableCompression: true,
		MaxIdleConns:       2,
	}}
}

// Close closes connections that are not in use.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Info asks the agent whose it is.
func (c *Client) Info(ctx context.Context) (Info, error) { return ask[Info](ctx, c, agentPath) }

// Snapshot returns the agent's state now. A tunnel server has none.
func (c *Client) Snapshot(ctx context.Context) (agent.Snapshot, error) {
	return ask[agent.Snapshot](ctx, c, snapshotPath)
}

func ask[T any](ctx context.Context, c *Client, path string) (value T, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	body, err := c.get(ctx, path)
	if err != nil {
		return value, err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(&value); err != nil {
		return value, fmt.Errorf("answer of the agent on this machine: %w", err)
	}
	return value, nil
}

// get returns the body of an answer, which the caller closes.
func (c *Client) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent on this machine: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the agent on this machine answered %d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	return resp.Body, nil
}

// ErrGone is returned by Watch when the agent has ended.
var ErrGone = errors.New("the agent has ended")

// Watch calls show with a snapshot at once, and after each change, as [agent.Agent.Watch]
// does. It returns nil when ctx has ended, ErrGone when the agent has, and the error of
// show if that fails.
func (c *Client) Watch(ctx context.Context, show func(agent.Snapshot) error) error {
	body, err := c.get(ctx, watchPath)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var s agent.Snapshot
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return fmt.Errorf("snapshot of the agent on this machine: %w", err)
		}
		if err := show(s); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(lines.Err(), bufio.ErrTooLong):
		return fmt.Errorf("snapshot of the agent on this machine: %w", lines.Err())
	default:
		return ErrGone // However its connection ended.
	}
}

// Panel returns a client of the agent's panel whose requests the agent sends, with the
// device's token: those about the device and its ports. The caller closes it.
func (c *Client) Panel(info Info, o tunnel.Options) (*tunnel.Client, error) {
	// The panel's address is for messages: nothing is sent to it.
	o.PanelURL, o.Insecure, o.Token = info.Panel, true, nil
	o.HTTPClient = &http.Client{Transport: through{c.transport}, Timeout: panelTimeout}
	return tunnel.New(o)
}

// through sends requests for the panel to the agent.
type through struct{ transport *http.Transport }

// RoundTrip implements http.RoundTripper.
func (t through) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = "http", "agent", "agent"
	out.URL.Path = panelPrefix + out.URL.Path
	resp, err := t.transport.RoundTrip(out)
	if err != nil {
		return nil, fmt.Errorf("the agent on this machine does not answer: %w", err)
	}
	if reason := resp.Header.Get(failureHeader); reason != "" {
		_ = resp.Body.Close()
		return nil, errors.New(strings.TrimSpace(reason))
	}
	return resp, nil
}
