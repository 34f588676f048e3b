package web_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/server/internal/oauth"
	"github.com/eclitunnel/eclitunnel/server/internal/web"
)

// TestLoginFailed_ExplainsEachReason: every reason for which a login at an identity provider
// fails has a page of its own, and a link to it shows nothing of anybody else's.
func TestLoginFailed_ExplainsEachReason(t *testing.T) {
	plain, err := web.HandlerOf(plainFiles(t), next)
	if err != nil {
		t.Fatal(err)
	}
	show := func(reason, request string) string {
		page := ask(t, plain, http.MethodGet, web.LoginFailed(reason, request), browser)
		if page.Code < 400 || page.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: answered %d %v", reason, page.Code, page.Header())
		}
		return page.Body.String()
	}
	seen := map[string]oauth.Reason{}
	for _, reason := range oauth.Reasons() {
		page := show(string(reason), "")
		if other, ok := seen[page]; ok {
			t.Errorf("%s and %s have one page", reason, other)
		}
		seen[page] = reason
	}
	if page := show("refused", "TY3KQ0S2"); !strings.Contains(page, "TY3KQ0S2") {
		t.Error("the page does not say where the log has more")
	}
	for _, text := range []string{"<script>alert(1)</script>", "call 555-1234", strings.Repeat("a", 65)} {
		if show("refused", text) != show("refused", "") || show(text, "") != show("failed", "") {
			t.Errorf("the page shows %q", text)
		}
	}
}

// TestLoginFailed_HasOneStatusWithAndWithoutConsole: the console explains a failure in the
// browser, and answers with the status of the plain page.
func TestLoginFailed_HasOneStatusWithAndWithoutConsole(t *testing.T) {
	plain, err := web.HandlerOf(plainFiles(t), next)
	if err != nil {
		t.Fatal(err)
	}
	console := consoleHandler(t)
	tag := ask(t, console, http.MethodGet, "/", browser).Header().Get("ETag")
	if tag == "" {
		t.Fatal("the console's page has no ETag")
	}
	for _, reason := range append(oauth.Reasons(), "unknown") {
		path := web.LoginFailed(string(reason), "")
		want := ask(t, plain, http.MethodGet, path, browser).Code
		for name, header := range map[string]http.Header{
			"": {}, "with its tag": {"If-None-Match": {tag}}, "in part": {"Range": {"bytes=0-3"}},
		} {
			header.Set("Accept", browser.Get("Accept"))
			if page := ask(t, console, http.MethodGet, path, header); page.Code != want || page.Body.String() != consolePage {
				t.Errorf("%s %s: %d %s, want %d", reason, name, page.Code, page.Body, want)
			}
		}
		if head := ask(t, console, http.MethodHead, path, browser); head.Code != want || head.Body.Len() != 0 {
			t.Errorf("HEAD %s: %d, want %d", reason, head.Code, want)
		}
	}
}
