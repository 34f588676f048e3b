package server

import (
	"crypto/tls"
	"io"
	"log/slog"
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
