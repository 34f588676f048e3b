package terminal_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

func TestWidth_CountsColumns(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "abc": 3, "Über": 4, "生存": 4, "e\u0301": 1, "\U0001F600": 2, "\u2764\ufe0f": 2,
		"\U0001F9D1\u200d\U0001F680": 4, "ﾃｽﾄ": 3, "→●▲": 3, "\U0001FAE8": 2,
	} {
		if got := terminal.Width(s); got != want {
			t.Errorf("%q takes %d columns, want %d", s, got, want)
		}
	}
}

func TestFit_KeepsToItsColumns(t *testing.T) {
	for _, c := range []struct {
		s       string
		columns int
		want    string
	}{
		{"survival", 8, "survival"}, {"survival", 5, "surv…"}, {"生存世界", 5, "生存…"}, {"生存世界", 4, "生…"},
		{"survival", 0, ""}, {"生存", 1, "…"}, {"abc", -1, ""},
	} {
		if got := terminal.Fit(c.s, c.columns, "…"); got != c.want {
			t.Errorf("%q in %d columns is %q, want %q", c.s, c.columns, got, c.want)
		}
	}
}
