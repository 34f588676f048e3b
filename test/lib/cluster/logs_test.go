package cluster_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

const secret = `s3cr"t/+ % wörd`

// logged has a program print a text while logs are kept, and returns what their search says.
func logged(t *testing.T, text string, prepare func(*cluster.Logs)) error {
	t.Helper()
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	logs := cluster.KeepLogs()
	if made, err := os.ReadDir(temporary); err != nil || len(made) > 0 {
		t.Errorf("before the first log there is %v, %v", made, err)
	}
	prepare(logs)
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte("first line\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	process, err := cluster.StartProcess("talker", exec.Command("cat", file), nil)
	if err != nil {
		t.Fatal(err)
	}
	<-process.Done()
	return logs.Close()
}

func TestLogs_FindASecretInEveryForm(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString
	for name, shown := range map[string]string{
		"as it is":                 secret,
		"after much":               strings.Repeat("x", 1<<20) + secret,
		"in a query":               "?password=" + url.QueryEscape(secret),
		"in a path":                "/" + url.PathEscape(secret) + "/",
		"quoted":                   strconv.Quote("password " + secret),
		"as JSON":                  `{"password":"s3cr\"t/+ % wörd"}`,
		"in base64":                basic([]byte(secret)),
		"in base64 behind one":     basic([]byte("a" + secret + "!")),
		"in base64 behind others":  "Authorization: Basic " + basic([]byte("ab"+secret)),
		"in base64 of URLs":        base64.RawURLEncoding.EncodeToString([]byte(secret)),
		"in hex":                   fmt.Sprintf("%x", secret),
		"in capital hex":           fmt.Sprintf("%X", secret),
		"as a slice of bytes":      fmt.Sprintf("%d", []byte(secret)),
		"without the end of lines": "x\ny " + secret,
	} {
		t.Run(name, func(t *testing.T) {
			err := logged(t, shown+"\n", func(l *cluster.Logs) { l.Secret("password", secret) })
			line := 2 + strings.Count(shown, "\n")
			if !errors.Is(err, cluster.ErrSecretLogged) || !strings.Contains(err.Error(), fmt.Sprintf("-talker:%d: password: ", line)) ||
				!strings.Contains(err.Error(), "[password]") || strings.Contains(err.Error(), shown) {
				t.Errorf("it says %.300v", err)
			}
		})
	}
}

func TestLogs_KnowSecretsByTheirFormAndByWhoHandlesThem(t *testing.T) {
	const token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIzZjBlIn0.c2lnbmF0dXJlIG9mIGl0"
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("of-a-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	urlFile := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(urlFile, []byte("postgres://u:of%2Fa%2Ffile@h/d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	given := func(setting string) func(*cluster.Logs) {
		return func(*cluster.Logs) {
			cmd := exec.Command("true")
			cmd.Env = []string{setting}
			process, err := cluster.StartProcess("given", cmd, nil)
			if err != nil {
				t.Fatal(err)
			}
			<-process.Done()
		}
	}
	answered := func(l *cluster.Logs) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Set-Cookie", "__Host-session=of-a-cookie; Path=/")
			_, _ = w.Write([]byte(`{"deviceCode": "of-an-answer"}`))
		}))
		defer server.Close()
		answer, err := (&http.Client{Transport: l.Transport(nil)}).Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	for shown, c := range map[string]struct {
		kind    string
		prepare func(*cluster.Logs)
	}{
		token:                          {"signed token", func(*cluster.Logs) {}},
		"etk_0123456789abcdefghijKLMN": {"API key", func(*cluster.Logs) {}},
		"https://panel.example.com/password#Ty3kq0s2vH1mXJt5w8nQfB6c": {"one-time link", func(*cluster.Logs) {}},
		"-----BEGIN PRIVATE KEY----- MC4CAQAwBQYDK2VwBCIEI":           {"private key", func(*cluster.Logs) {}},
		"of-a-setting": {"ECLITUNNEL_ADMIN_PASSWORD", given("ECLITUNNEL_ADMIN_PASSWORD=of-a-setting")},
		"of-a-file":    {"ECLITUNNEL_TOKEN_FILE", given("ECLITUNNEL_TOKEN_FILE=" + file)},
		"of/a/url":     {"ECLITUNNEL_DATABASE_URL", given("ECLITUNNEL_DATABASE_URL=postgres://u:of%2Fa%2Furl@h/d")},
		"of/a/file":    {"ECLITUNNEL_DATABASE_URL_FILE", given("ECLITUNNEL_DATABASE_URL_FILE=" + urlFile)},
		"of-a-cookie":  {"__Host-session", answered},
		"of-an-answer": {"deviceCode", answered},
	} {
		t.Run(c.kind, func(t *testing.T) {
			err := logged(t, "level=info msg=x value="+shown, c.prepare)
			if !errors.Is(err, cluster.ErrSecretLogged) || !strings.Contains(err.Error(), ": "+c.kind+": ") {
				t.Errorf("it says %v", err)
			}
		})
	}
}

func TestLogs_KeepFilesThatProgramsWriteAndRemove(t *testing.T) {
	err := logged(t, "nothing", func(l *cluster.Logs) {
		dir := t.TempDir()
		l.Secret("password", secret)
		file := filepath.Join(dir, "postgres.log")
		if err := os.WriteFile(file, []byte("ERROR\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.Link(file); err != nil {
			t.Fatal(err)
		}
		if err := l.Link(file + ".missing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing one: %v", err)
		}
		written, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = written.WriteString("DETAIL: (" + secret + ")\n")
		if err := errors.Join(err, written.Close(), os.Remove(file)); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.Is(err, cluster.ErrSecretLogged) || !strings.Contains(err.Error(), "-postgres.log:2: password: ") {
		t.Errorf("it says %v", err)
	}
}

func TestLogs_OfProgramsThatTellNothingAreRemoved(t *testing.T) {
	err := logged(t, "keyId=abc panel=https://panel.example.com/password code=BCDF-1234 prefix=etk_abcdefgh", func(l *cluster.Logs) {
		l.Secret("password", secret)
		l.Secret("too short", "panel")
	})
	if err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "eclitunnel-logs-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
