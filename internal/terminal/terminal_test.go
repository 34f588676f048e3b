package terminal_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

func TestEscape_KeepsNamesOfAllScripts(t *testing.T) {
	for _, name := range []string{"home-server", "Über 生存 \U0001F9D1\u200d\U0001F680", "\u0645\u06cc\u200c\u062e", `a\b`, ""} {
		if got := terminal.Escape(name); got != name {
			t.Errorf("%q is printed as %q", name, got)
		}
	}
	if got := terminal.Escape("\x9b2J\u202e"); got != `\x9b2J\u202e` {
		t.Errorf("invalid UTF-8 is printed as %q", got)
	}
}
