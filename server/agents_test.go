package server_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

func TestAgents_AreHandedOutByThePanel(t *testing.T) {
	dir := t.TempDir()
	p := servertest.Start(t, func(o *server.Options) { o.AgentsDir = dir })
	browser := &http.Client{Transport: newTransport(t)}
	get := func(path string) (int, string) {
		t.Helper()
		answer, err := browser.Get(p.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	downloads := func() bool {
		t.Helper()
		session, err := p.Admin().GetSessionWithResponse(t.Context())
		if err != nil || session.JSON200 == nil {
			t.Fatal(err, session)
		}
		return session.JSON200.AgentDownloads
	}
	if code, text := get("/install"); code != http.StatusNotFound || !strings.Contains(text, "no agents") || downloads() {
		t.Errorf("without agents: %d %s", code, text)
	}
	const name = "eclitunnel_1.2.3_linux_amd64.tar.gz"
	for file, text := range map[string]string{name: "archive", "SHA256SUMS": strings.Repeat("a", 64) + "  " + name + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if code, text := get("/install"); code != http.StatusOK || !strings.Contains(text, "panel='"+p.URL+"'") || !downloads() {
		t.Errorf("with agents: %d %s", code, text)
	}
	if code, text := get("/install/" + name); code != http.StatusOK || text != "archive" {
		t.Errorf("the archive: %d %s", code, text)
	}
}
