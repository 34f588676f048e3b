package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// handshakeTimeout bounds the whole of a control channel's opening: DNS, TCP,
	// TLS, the proxy and the upgrade.
	handshakeTimeout = 10 * time.Second
	// connectTimeout bounds DNS and TCP. While the network is down, the kernel retries
	// a connection at growing intervals. A new attempt starts with short ones, and
	// succeeds soon after the network is back.
	connectTimeout = 4 * time.Second
)

// ControlChannel opens the device's control channel, a WebSocket on which each text
// message is a ControlMessage of the contract. [Options].Token must return a device
// token. The caller sends a types.Hello first, within 10 seconds, and owns the
// connection: it closes it, and keeps the WebSocket's rules on concurrent use.
//
// It tries once, for at most 10 seconds (4 for DNS and TCP), and is not retried. If the
// panel refuses the upgrade, the error is an [*Error].
func (c *Client) ControlChannel(ctx context.Context) (*websocket.Conn, error) {
	header := http.Header{"User-Agent": {c.sender.userAgent}}
	if token := c.sender.token(); token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	// http becomes ws, and https wss.
	address := "ws" + strings.TrimPrefix(c.panel, "http") + "/api/tunnel/ws"
	ws, resp, err := c.dialer.DialContext(ctx, address, header)
	if err == nil {
		return ws, nil
	}
	if resp == nil || !errors.Is(err, websocket.ErrBadHandshake) {
		return nil, c.sender.failure(ctx, err)
	}
	// The dialer keeps the first kilobyte of a refusal, enough for an error body of
	// the panel.
	body, readErr := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // It is a buffer.
	if readErr != nil {
		return nil, c.sender.failure(ctx, readErr)
	}
	return nil, answerError(c.panel, resp, body)
}

// dialer returns a WebSocket dialer with the proxy, dialer and TLS settings of the
// HTTP client.
func dialer(from *http.Client) *websocket.Dialer {
	d := &websocket.Dialer{
		Proxy:            http.ProxyFromEnvironment,
		NetDialContext:   withTimeout(connectTimeout, new(net.Dialer).DialContext),
		HandshakeTimeout: handshakeTimeout,
	}
	t, ok := from.Transport.(*http.Transport)
	if !ok {
		return d
	}
	d.Proxy = t.Proxy
	if t.DialContext != nil {
		d.NetDialContext = withTimeout(connectTimeout, t.DialContext)
	}
	if t.TLSClientConfig != nil {
		d.TLSClientConfig = t.TLSClientConfig.Clone()
		// The transport offers HTTP/2 here; a WebSocket upgrade needs HTTP/1.1.
		d.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	return d
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// withTimeout bounds a dial.
func withTimeout(d time.Duration, next dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return next(ctx, network, address)
	}
}
