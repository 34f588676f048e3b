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
	// connectTimeout bounds DNS and TCP. While the network is away the system asks
	// again at ever longer intervals; a try of its own begins anew, and is answered
	// soon after the network is back.
	connectTimeout = 4 * time.Second
)

// ControlChannel opens the device's WebSocket to the panel. It tries once: the
// caller keeps the channel and its back-off. A refused upgrade is an [*Error].
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
	// The dialer keeps the first kilobyte of a refusal, which holds any error
	// body of the panel's.
	body, readErr := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // It is a buffer.
	if readErr != nil {
		return nil, c.sender.failure(ctx, readErr)
	}
	return nil, answerError(c.panel, resp, body)
}

// dialer takes over the proxy, dialer and TLS settings of the HTTP client.
func dialer(from *http.Client) *websocket.Dialer {
	d := &websocket.Dialer{
		Proxy:            http.ProxyFromEnvironment,
		NetDialContext:   within(connectTimeout, new(net.Dialer).DialContext),
		HandshakeTimeout: handshakeTimeout,
	}
	t, ok := from.Transport.(*http.Transport)
	if !ok {
		return d
	}
	d.Proxy = t.Proxy
	if t.DialContext != nil {
		d.NetDialContext = within(connectTimeout, t.DialContext)
	}
	if t.TLSClientConfig != nil {
		d.TLSClientConfig = t.TLSClientConfig.Clone()
		// The transport offers HTTP/2 there; a WebSocket begins in HTTP/1.1.
		d.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	return d
}

type dial = func(ctx context.Context, network, address string) (net.Conn, error)

// within gives a dial so much time.
func within(d time.Duration, next dial) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return next(ctx, network, address)
	}
}
