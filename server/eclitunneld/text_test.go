package main

import (
	"os"
	"strings"
	"testing"

	openapi_types "github.com/oapi-codegen/runtime/types"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// utf16 is text as PowerShell writes it.
func utf16(text string) string {
	return "\xff\xfe" + strings.Join(strings.Split(text, ""), "\x00") + "\x00"
}

func TestAdminCreate_TakesThePasswordThatPeopleCanEnter(t *testing.T) {
	const password = "correct horse battery"
	url := dbtest.URL(t)
	panel := servertest.Start(t, func(o *server.Options) { o.Database.URL = url })
	for name, written := range map[string]string{
		"mark":   "\uFEFF" + password,
		"breaks": password + "\r\n\r\n",
		"both":   "\uFEFF" + password + "\r\n",
	} {
		t.Setenv("ECLITUNNEL_DATABASE_URL", "")
		t.Setenv("ECLITUNNEL_DATABASE_URL_FILE", file(t, "\uFEFF"+url+" \r\n"))
		create := func(source, stdin string, more ...string) {
			t.Helper()
			email := name + "." + source + "@example.com"
			code, _, stderr := call(t, stdin, append([]string{"admin", "create", "--email", email}, more...)...)
			if code != exitOK {
				t.Fatalf("%s, %s: exit code %d, %q", name, source, code, stderr)
			}
			login, err := panel.Client("").LoginWithResponse(t.Context(), types.LoginRequest{Email: openapi_types.Email(email), Password: password})
			if err != nil || login.JSON200 == nil {
				t.Errorf("%s, %s: %v, %s", name, source, err, login.Body)
			}
		}
		create("file", "", "--password-file", file(t, written))
		create("stdin", written, "--password-file", "-")
	}
	for name, test := range map[string]struct{ written, want string }{
		"PowerShell's": {utf16(password), "UTF-16"},
		"Latin-1":      {"corr\xe9ct horse battery", "UTF-8"},
		"two lines":    {password + "\nand more", "more than one line"},
	} {
		code, _, stderr := call(t, "", "admin", "create", "--email", "x@example.com", "--password-file", file(t, test.written))
		if code != exitUsage || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, %q", name, code, stderr)
		}
	}
}

func TestRun_CleansEveryVariable(t *testing.T) {
	t.Setenv("ECLITUNNEL_DATABASE_URL", "\uFEFFpostgres://panel:hush@127.0.0.1:1/x\r\n")
	t.Setenv("ECLITUNNEL_LOG_LEVEL", "error\r")
	t.Setenv("ECLITUNNEL_LOG_FORMAT", "\uFEFFjson")
	if code, _, stderr := call(t, "", "migrate"); code != exitFailed || !strings.Contains(stderr, "refused") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	t.Setenv("ECLITUNNEL_LOG_LEVEL", "\xe9rror")
	if code, _, stderr := call(t, "", "migrate"); code != exitUsage || !strings.Contains(stderr, "ECLITUNNEL_LOG_LEVEL is not in UTF-8") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestRun_RefusesSecretsThatOthersCanRead(t *testing.T) {
	secret := func(mode os.FileMode) string {
		path := file(t, "postgres://panel:hush@127.0.0.1:1/x")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, args := range map[string][]string{
		"database URL":   {"migrate", "--database-url-file", secret(0o644)},
		"password":       {"admin", "create", "--email", "a@example.com", "--password-file", secret(0o640)},
		"first password": {"serve", "--admin-email", "a@example.com", "--admin-password-file", secret(0o604)},
	} {
		code, _, stderr := call(t, "", args...)
		if code != exitUsage || !strings.Contains(stderr, "run: chmod 600 "+args[len(args)-1]) {
			t.Errorf("%s: exit code %d, %q", name, code, stderr)
		}
	}
}
