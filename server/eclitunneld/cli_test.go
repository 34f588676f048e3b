package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// call runs a command line until it returns.
func call(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRun_ExplainsUsageErrorsInOneLine(t *testing.T) {
	t.Setenv("ECLITUNNEL_DATABASE_URL", "postgres://nowhere.invalid/x")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no command":           {nil, "expected one of"},
		"unknown flag":         {[]string{"serve", "--colour"}, "unknown flag"},
		"port range":           {[]string{"serve", "--port-range", "20000"}, "FIRST-LAST"},
		"port range backwards": {[]string{"serve", "--port-range", "2-1"}, "port range"},
		"proxy":                {[]string{"serve", "--trusted-proxies", "10.0.0.0/8,proxy"}, "proxy"},
		"log level":            {[]string{"serve", "--log-level", "loud"}, "log-level"},
		"public URL":           {[]string{"serve", "--public-url", "panel.example.com"}, "http or https"},
		"key rotation":         {[]string{"serve", "--key-rotation", "24h"}, "key rotation"},
		"audit retention":      {[]string{"serve", "--audit-retention", "1h"}, "audit retention"},
		"shutdown grace":       {[]string{"serve", "--shutdown-grace=-1s"}, "shutdown grace"},
		"password in a URL":    {[]string{"serve", "--smtp-url", "smtp://panel:secret@mail", "--mail-from", "a@example.com"}, "a file of its own"},
		"no sender":            {[]string{"serve", "--smtp-url", "smtp://mail"}, "mail from"},
		"mail password alone":  {[]string{"serve", "--smtp-password-file", file(t, "secret")}, "no SMTP URL"},
		"nobody logs in":       {[]string{"serve", "--local-accounts=false"}, "identity provider"},
		"EcliPanel's URL":      {[]string{"serve", "--eclipanel-url", "https://panel.example.com/?token=x"}, "EcliPanel's URL"},
		"EcliPanel's origins":  {[]string{"serve", "--eclipanel-url", "https://panel.example.com", "--eclipanel-origins", "panel.example.com"}, "origins"},
		"EcliPanel's cache":    {[]string{"serve", "--eclipanel-url", "https://panel.example.com", "--eclipanel-cache-time", "6m"}, "cache time"},
		"no key to revoke":     {[]string{"keys", "revoke"}, "--all"},
		"keys named and all":   {[]string{"keys", "revoke", "--all", "K"}, "--all"},
		"email alone":          {[]string{"serve", "--admin-email", "admin@example.com"}, "password"},
		"two database URLs":    {[]string{"migrate", "--database-url-file", file(t, "postgres://x")}, "both ECLITUNNEL_DATABASE_URL"},
		"no password":          {[]string{"admin", "create", "--email", "admin@example.com"}, "no password"},
		"short password":       {[]string{"admin", "create", "--email", "admin@example.com", "--password-file", file(t, "short\n")}, "at least 12"},
		"empty password file":  {[]string{"admin", "create", "--email", "admin@example.com", "--password-file", file(t, "\n")}, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, "", test.args...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
			}
		})
	}
}

func TestRun_VersionAndHelp(t *testing.T) {
	if code, stdout, _ := call(t, "", "version"); code != exitOK || !strings.HasPrefix(stdout, "eclitunneld "+version) {
		t.Errorf("exit code %d, %q", code, stdout)
	}
	for _, args := range [][]string{{"serve", "--help"}, {"help", "serve"}} {
		code, stdout, _ := call(t, "", args...)
		for _, want := range []string{"--listen", "(default: :8080)", "$ECLITUNNEL_PORT_RANGE", "20000-29999"} {
			if code != exitOK || !strings.Contains(stdout, want) {
				t.Errorf("%v: exit code %d, help lacks %q", args, code, want)
			}
		}
	}
	for _, args := range [][]string{{"help"}, {"help", "keys"}, {"help", "keys", "revoke"}} {
		if code, stdout, stderr := call(t, "", args...); code != exitOK || !strings.Contains(stdout, "Usage: eclitunneld") {
			t.Errorf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

func TestRun_MalformedDatabaseURLIsAUsageError(t *testing.T) {
	t.Setenv("ECLITUNNEL_DATABASE_URL", "postgres://panel:hush/hush:hush@127.0.0.1:1/x")
	for _, args := range [][]string{{"serve"}, {"migrate"}, {"keys", "list"}} {
		code, _, stderr := call(t, "", args...)
		if code != exitUsage || !strings.Contains(stderr, "malformed") || strings.Contains(stderr, "hush") {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
}

func TestRun_FailsWithoutTheDatabaseAndHidesItsPassword(t *testing.T) {
	t.Setenv("ECLITUNNEL_DATABASE_URL", "postgres://panel:hush-hush@127.0.0.1:1/x")
	code, _, stderr := call(t, "", "migrate")
	if code != exitFailed || stderr == "" || strings.Contains(stderr, "hush-hush") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestAdminCreate_ReadsThePasswordFromEachSource(t *testing.T) {
	const password = "correct horse battery"
	t.Setenv("ECLITUNNEL_DATABASE_URL", dbtest.URL(t))
	t.Setenv("ECLITUNNEL_ADMIN_PASSWORD_FILE", "") // As compose files set variables that are not given.
	create := func(email, stdin string, more ...string) (int, string, string) {
		return call(t, stdin, append([]string{"admin", "create", "--email", email, "--log-level", "error"}, more...)...)
	}
	t.Setenv("ECLITUNNEL_ADMIN_PASSWORD", password)
	if code, stdout, stderr := create("c@example.com", ""); code != exitOK || !strings.Contains(stdout, "ECLITUNNEL_ADMIN_PASSWORD") {
		t.Errorf("environment: exit code %d, %q, %q", code, stdout, stderr)
	}
	if code, stdout, stderr := create("a@example.com", "", "--password-file", file(t, password+"\n")); code != exitOK || !strings.Contains(stdout, "a@example.com") || stderr != "" {
		t.Errorf("file: exit code %d, %q, %q", code, stdout, stderr)
	}
	if code, _, stderr := create("b@example.com", password+"\nmore", "--password-file", "-"); code != exitOK {
		t.Errorf("standard input: exit code %d, %q", code, stderr)
	}
	if code, _, stderr := create("d@example.com", password, "--password-file", "-", "--no-local-accounts"); code != exitOK || !strings.Contains(stderr, "switched off") {
		t.Errorf("without local accounts: exit code %d, %q", code, stderr)
	}
	if code, _, stderr := create("A@example.com", password, "--password-file", "-"); code != exitFailed || !strings.Contains(stderr, "exists already") {
		t.Errorf("taken email: exit code %d, %q", code, stderr)
	}
}

func TestAdminCreate_GivesNoSecondAdminThePasswordInTheEnvironment(t *testing.T) {
	const password = "correct horse battery"
	for name, variables := range map[string]map[string]string{
		"the password":      {"ECLITUNNEL_ADMIN_PASSWORD": password},
		"its file":          {"ECLITUNNEL_ADMIN_PASSWORD_FILE": file(t, password+"\n")},
		"the email as well": {"ECLITUNNEL_ADMIN_PASSWORD": password, "ECLITUNNEL_ADMIN_EMAIL": "second@example.com"},
	} {
		t.Run(name, func(t *testing.T) {
			url := dbtest.URL(t)
			t.Setenv("ECLITUNNEL_DATABASE_URL", url)
			for name, value := range variables {
				t.Setenv(name, value)
			}
			create := []string{"admin", "create", "--log-level", "error"}
			if code, stdout, stderr := call(t, "", append(create, "--email", "first@example.com")...); code != exitOK || !strings.Contains(stdout, "ECLITUNNEL_ADMIN_PASSWORD") {
				t.Fatalf("first: exit code %d, %q, %q", code, stdout, stderr)
			}
			if variables["ECLITUNNEL_ADMIN_EMAIL"] == "" {
				create = append(create, "--email", "second@example.com")
			}
			code, stdout, stderr := call(t, "", create...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, "ECLITUNNEL_ADMIN_PASSWORD") || !strings.Contains(stderr, "--password-file") {
				t.Errorf("second: exit code %d, %q, %q", code, stdout, stderr)
			}
			if _, err := dbtest.Open(t, url).UserByEmail(t.Context(), "second@example.com"); !errors.Is(err, db.ErrNotFound) {
				t.Errorf("there is a second admin: %v", err)
			}
		})
	}
}

// field returns a field of the first line of a JSON log with a message.
func field(t *testing.T, log, message, name string) string {
	t.Helper()
	for line := range strings.Lines(log) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err == nil && fields["msg"] == message {
			return fmt.Sprint(fields[name])
		}
	}
	t.Fatalf("no line says %q", message)
	return ""
}

func get(t *testing.T, url string) (body string, ok bool) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), resp.StatusCode == http.StatusOK
}

func TestServe_KeepsMetricsOffItsPublicListenerAndStopsCleanly(t *testing.T) {
	t.Setenv("ECLITUNNEL_DATABASE_URL_FILE", file(t, dbtest.URL(t)+"\n"))
	t.Setenv("ECLITUNNEL_LISTEN", "127.0.0.1:0")
	t.Setenv("ECLITUNNEL_METRICS_LISTEN", "127.0.0.1:0")
	t.Setenv("ECLITUNNEL_RELAY_LISTEN", "127.0.0.1:0")
	t.Setenv("ECLITUNNEL_LOG_FORMAT", "json")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log, stderr := io.Pipe()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"serve"}, strings.NewReader(""), io.Discard, stderr) }()
	defer log.Close() // Unblocks later writes.

	var text strings.Builder
	chunk := make([]byte, 4096)
	for !strings.Contains(text.String(), `"msg":"panel is ready"`) {
		n, err := log.Read(chunk)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(chunk[:n])
	}
	go func() { _, _ = io.Copy(io.Discard, log) }()

	private := field(t, text.String(), "metrics are served", "address")
	if body, ok := get(t, "http://"+private+"/metrics"); !ok || !strings.Contains(body, `eclitunnel_panel_devices_online{kind="server"} 1`) {
		t.Errorf("/metrics: %t, %s", ok, body)
	}
	public := field(t, text.String(), "panel is ready", "url")
	for _, path := range []string{"/metrics", "/debug/pprof/"} {
		if body, ok := get(t, public+path); ok {
			t.Errorf("the public listener serves %s: %s", path, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	select {
	case code := <-ended:
		if code != exitOK {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still running")
	}
}

// TestServe_NoRoleOfEcliPanelMakesAdmins if that is what the flag says.
func TestServe_NoRoleOfEcliPanelMakesAdmins(t *testing.T) {
	for name, test := range map[string]struct {
		variable string
		args     []string
		want     []string
	}{
		"not set":            {"", nil, []string{"*", "admin", "rootAdmin"}},
		"an empty flag":      {"", []string{"--eclipanel-admin-roles="}, []string{}},
		"a flag":             {"boss", []string{"--eclipanel-admin-roles=root,chief"}, []string{"root", "chief"}},
		"a variable":         {"boss", nil, []string{"boss"}},
		"a variable of none": {",", nil, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("ECLITUNNEL_ECLIPANEL_ADMIN_ROLES", test.variable)
			if err := cleanVariables(); err != nil {
				t.Fatal(err)
			}
			var command serveCommand
			parser, err := kong.New(&command, kong.DefaultEnvars(variablePrefix), kong.Vars{"data_dir": t.TempDir(), "acme_directory": "https://ca.example.com"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.Parse(test.args); err != nil {
				t.Fatal(err)
			}
			options, err := command.options()
			if got := options.EcliPanel.AdminRoles; err != nil || got == nil || !slices.Equal(got, test.want) {
				t.Errorf("%#v, want %q: %v", got, test.want, err)
			}
		})
	}
}
