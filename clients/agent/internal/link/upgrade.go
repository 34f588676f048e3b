package link

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"

	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// acceptGUID is appended to the key of an upgrade before hashing (RFC 6455 section
// 1.3).
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// stream opens a data connection for TCP with a link's secret. Package tcpstream
// reads its frames, so the upgrade is not left to a WebSocket library, which would
// keep the first of them in a buffer of its own.
func (d *serverDialer) stream(ctx context.Context, secret string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := d.attemptStream(ctx, secret, d.sessions.held.Load())
	if errors.Is(err, errNotResumed) {
		conn, err = d.attemptStream(ctx, secret, false)
	}
	return conn, err
}

// attemptStream is one attempt of stream. With resume it fails with errNotResumed unless
// the TLS session is resumed, on a network where that need not be done with a classic
// hello anyway.
func (d *serverDialer) attemptStream(ctx context.Context, secret string, resume bool) (net.Conn, error) {
	ctx, attempt := d.line.Begin(ctx, d.address)
	transport := d.http
	switch {
	case attempt.Classic(false):
		transport = d.classicHTTP
	case resume:
		attempt.Resumes()
		transport = d.resuming
	}
	conn, err := d.upgrade(ctx, transport, secret)
	if errors.As(err, new(*refusedError)) || errors.Is(err, errNotResumed) {
		attempt.End(nil) // It answered.
	} else {
		attempt.End(err)
	}
	return conn, err
}

func (d *serverDialer) upgrade(ctx context.Context, transport *http.Transport, secret string) (net.Conn, error) {
	conn := new(upgraded)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { conn.Conn = got.Conn },
	})
	u := url.URL{Scheme: "https", Host: d.address, Path: wire.PathData, RawQuery: dataQuery(wire.KindStream).Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 16)
	_, _ = rand.Read(key) // It never fails.
	request.Header = http.Header{
		"Authorization":          {"Bearer " + secret},
		"Connection":             {"Upgrade"},
		"Upgrade":                {"websocket"},
		"Sec-Websocket-Version":  {"13"},
		"Sec-Websocket-Key":      {base64.StdEncoding.EncodeToString(key)},
		"Sec-Websocket-Protocol": {wire.Subprotocol},
	}
	plain, err := d.mayBePlain(request)
	if err != nil {
		return nil, err
	}
	if plain {
		request.Header.Set("Sec-Websocket-Protocol", wire.SubprotocolPlain+", "+wire.Subprotocol)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = response.Body.Close() }()
		return nil, newRefusedError(response)
	}
	var ok bool
	if conn.body, ok = response.Body.(io.ReadWriteCloser); !ok || conn.Conn == nil {
		_ = response.Body.Close()
		return nil, errors.New("unusable upgrade response")
	}
	protocol, err := checkUpgrade(request.Header, response.Header)
	if err != nil || protocol == wire.Subprotocol {
		tcpstream.StayWithTLS(conn)
	}
	switch {
	case err == nil && protocol == wire.Subprotocol:
		return conn, nil
	case err == nil && plain:
		var data net.Conn
		if data, err = tcpstream.LeaveTLS(conn.Conn); err == nil {
			return data, nil
		}
	case err == nil:
		err = errors.New("it turned off encryption unasked")
	}
	_ = conn.Close()
	return nil, err
}

// mayBePlain reports whether a data connection for TCP may leave TLS. It may not
// behind a proxy, whose own TLS connection may lie below.
func (d *serverDialer) mayBePlain(request *http.Request) (bool, error) {
	if !d.plain || d.http.Proxy == nil {
		return d.plain, nil
	}
	proxy, err := d.http.Proxy(request)
	return proxy == nil, err
}

// connectStream opens the socket of a data connection for TCP.
func (d *serverDialer) connectStream(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.connect(ctx, network, address)
	if s, ok := conn.(*tcpstream.Socket); ok && d.plain {
		s.KeepRecords()
	}
	return conn, err
}

// checkUpgrade checks a server's half of the upgrade (RFC 6455 section 4.1),
// and returns the subprotocol that it has chosen.
func checkUpgrade(request, response http.Header) (string, error) {
	protocol := response.Get("Sec-WebSocket-Protocol")
	if protocol != wire.Subprotocol && protocol != wire.SubprotocolPlain {
		return "", fmt.Errorf("it does not support %s", wire.Subprotocol)
	}
	accept := sha1.Sum([]byte(request.Get("Sec-WebSocket-Key") + acceptGUID))
	if response.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(accept[:]) ||
		response.Get("Sec-WebSocket-Extensions") != "" {
		return "", errors.New("invalid upgrade response")
	}
	return protocol, nil
}

// upgraded is a connection after its upgrade. What arrived together with the response
// is read from the response's body.
type upgraded struct {
	net.Conn
	body io.Reader
}

func (u *upgraded) Read(p []byte) (int, error) { return u.body.Read(p) }

// NetConn returns the connection below. Reading from it directly may skip what body
// has buffered.
func (u *upgraded) NetConn() net.Conn { return u.Conn }
