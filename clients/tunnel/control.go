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

	"github.com/eclitunnel/eclitunnel/internal/dialer"
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
// panel's name has several addresses and the one that it connected to failed, the next
// try begins with another; see [Client.Avoid]. If the panel refuses the upgrade, the
// error is an [*Error].
func (c *Client) ControlChannel(ctx context.Context) (*websocket.Conn, error) {
	header := http.Header{"User-Agent": {c.sender.userAgent}}
	if token := c.sender.token(); token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	// http becomes ws, and https wss.
	address := "ws" + strings.TrimPrefix(c.panel, "http") + "/api/tunnel/ws"
	lineCtx, attempt := c.line.Begin(ctx, c.panel)
	d := c.dialer
	if attempt.Classic(true) {
		d = c.classic
	}
	ws, resp, err := d.DialContext(lineCtx, address, header)
	if resp == nil || !errors.Is(err, websocket.ErrBadHandshake) {
		attempt.End(err)
		if err != nil {
			return nil, c.sender.failure(ctx, err)
		}
		return ws, nil
	}
	// The dialer keeps the first kilobyte of a refusal, enough for an error body of
	// the panel.
	body, readErr := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // It is a buffer.
	if readErr != nil {
		attempt.End(readErr)
		return nil, c.sender.failure(ctx, readErr)
	}
	refusal := answerError(c.panel, resp, body)
	if errors.As(refusal, new(*Error)) {
		attempt.End(nil) // The panel answered, and no proxy for it.
	} else {
		attempt.End(refusal)
	}
	return nil, refusal
}

// Avoid makes the next connection begin with another address of the panel than remote,
// if its name has several. It is for a control channel that was opened and brought no
// message: remote is its RemoteAddr.
func (c *Client) Avoid(remote net.Addr) { c.line.Failed(remote) }

// webSocketDialer returns a WebSocket dialer with the proxy, dialer and TLS settings of
// the HTTP client. If that has no dialer, it uses line.
func webSocketDialer(from *http.Client, line *dialer.Dialer) *websocket.Dialer {
	d := &websocket.Dialer{
		EnableCompression: true,

		Proxy:            proxy,
		NetDialContext:   withTimeout(connectTimeout, line.DialContext),
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

// withTimeout bounds a dial.
func withTimeout(d time.Duration, next dialer.DialFunc) dialer.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return next(ctx, network, address)
	}
}
