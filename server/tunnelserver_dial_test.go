package server

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestPinned_AcceptsOneCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	own := server.TLS.Certificates[0]
	other := tls.Certificate{Certificate: [][]byte{[]byte("another")}}
	for name, test := range map[string]struct {
		certificate tls.Certificate
		accepted    bool
	}{
		"the panel's": {own, true},
		"another":     {other, false},
	} {
		transport := &http.Transport{TLSClientConfig: pinned(test.certificate)}
		resp, err := (&http.Client{Transport: transport}).Get(server.URL)
		if (err == nil) != test.accepted {
			t.Errorf("%s certificate: %v", name, err)
		}
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}

func TestDialListener_NeedsNoName(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "127.0.0.1:0", "[::1]:0"} {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err) // No IPv6 here.
			continue
		}
		conn, err := dialListener(t.Context(), "tcp", listener.Addr())
		if err != nil {
			t.Errorf("%s: %v", address, err)
		} else {
			conn.Close()
		}
		listener.Close()
	}
}
