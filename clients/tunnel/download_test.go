package tunnel_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/clients/tunnel"
)

func TestDownload_WritesTheFileWithoutTheToken(t *testing.T) {
	panel := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "":
			t.Error("it sends the token")
		case r.URL.Path == "/base/install/SHA256SUMS":
			_, _ = w.Write([]byte("0123456789"))
		case r.URL.Path == "/base/install/half":
			w.Header().Set("Content-Length", "20")
			_, _ = w.Write([]byte("0123456789"))
		case r.URL.Path == "/base/install/moved":
			http.Redirect(w, r, "https://elsewhere.test/file", http.StatusFound)
		case r.URL.Path == "/base/install/none":
			http.Error(w, "This panel has no agents to hand out.", http.StatusNotFound)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte("<html>"))
		}
	}))
	t.Cleanup(panel.Close)
	client, err := tunnel.New(tunnel.Options{PanelURL: panel.URL + "/base", Token: func() string { return "secret" }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	var b bytes.Buffer
	if err := client.Download(t.Context(), "SHA256SUMS", 10, &b); err != nil || b.String() != "0123456789" {
		t.Errorf("%q, %v", b.String(), err)
	}
	if err := client.Download(t.Context(), "SHA256SUMS", 9, &b); err == nil || !strings.Contains(err.Error(), "more than 9 bytes") {
		t.Errorf("a file that is too large: %v", err)
	}
	var unreachable *tunnel.UnreachableError
	for _, name := range []string{"half", "moved"} {
		if err := client.Download(t.Context(), name, 100, &b); !errors.As(err, &unreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, words := range map[string]string{
		"none":  "hands out no none: This panel has no agents to hand out.",
		"other": "hands out no other",
	} {
		var missing *tunnel.NotOfferedError
		if err := client.Download(t.Context(), name, 100, &b); !errors.As(err, &missing) || !strings.HasSuffix(err.Error(), words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Download(ended, "SHA256SUMS", 10, &b); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of ctx: %v", err)
	}
}
