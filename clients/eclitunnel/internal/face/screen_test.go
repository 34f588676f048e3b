package face_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/eclitunnel/internal/face"
	"github.com/eclitunnel/eclitunnel/clients/eclitunnel/internal/face/facetest"
	"github.com/eclitunnel/eclitunnel/internal/terminal"
)

// shown is a screen on an emulated terminal.
type shown struct {
	*face.Screen
	*facetest.Emulator
	t    *testing.T
	size face.Size
}

func (s *shown) Write(p []byte) (int, error) { return s.Screen.Write(p) }

func newShown(t *testing.T, columns, rows int) *shown {
	e := facetest.NewEmulator(columns, rows)
	return &shown{face.NewScreen(e), e, t, face.Size{Columns: columns, Rows: rows}}
}

// draw draws a snapshot and returns its rows.
func (s *shown) draw(snapshot agent.Snapshot) string {
	s.t.Helper()
	rows := face.Render(snapshot, "", s.size, face.Style{Color: true, Unicode: true}, now)
	if err := s.Draw(rows, s.size); err != nil {
		s.t.Fatal(err)
	}
	if row, column, visible, unknown := s.State(); column != 0 || !visible || len(unknown) > 0 {
		s.t.Errorf("the cursor is in %d, %d, visible: %v; unknown: %q", row, column, visible, unknown)
	}
	return strings.TrimRight(strip(strings.Join(rows, "\n")), "\n")
}

var colors = regexp.MustCompile("\x1b\\[[0-9]*m")

func strip(s string) string { return colors.ReplaceAllString(s, "") }

func TestScreen_DrawsInPlaceBelowWhatIsWritten(t *testing.T) {
	s := newShown(t, 80, 40)
	_, _ = s.Emulator.Write([]byte("$ eclitunnel run\r\n"))
	long := s.draw(evening())
	if got := s.Text(); got != "$ eclitunnel run\n"+long {
		t.Errorf("drawn:\n%s", got)
	}
	few := evening()
	few.Tunnels = few.Tunnels[:1]
	short := s.draw(few)
	if got := s.Text(); got != "$ eclitunnel run\n"+short {
		t.Errorf("a shorter picture leaves something:\n%s", got)
	}
	_, _ = fmt.Fprintf(s, "a line of the log\nand the beg")
	_, _ = fmt.Fprintf(s, "in of another\n")
	if got := s.Text(); got != "$ eclitunnel run\na line of the log\nand the begin of another\n"+short {
		t.Errorf("the log is not above the picture:\n%s", got)
	}
	s.draw(evening())
	if got := s.Text(); got != "$ eclitunnel run\na line of the log\nand the begin of another\n"+long {
		t.Errorf("after the log:\n%s", got)
	}
}

func TestScreen_LogLinesStayInTheHistory(t *testing.T) {
	s := newShown(t, 80, 24)
	picture := s.draw(many())
	for i := range 50 {
		_, _ = fmt.Fprintf(s, "line %d %s\n", i, strings.Repeat("x", 90))
	}
	if got := s.Text(); !strings.HasSuffix(got, picture) {
		t.Errorf("the picture is gone:\n%s", got)
	}
	history := s.History() + "\n" + s.Text()
	for i := range 50 {
		if strings.Count(history, fmt.Sprintf("line %d x", i)) != 1 {
			t.Errorf("line %d is %d times in the history", i, strings.Count(history, fmt.Sprintf("line %d x", i)))
		}
	}
	if strings.Count(history, "EcliTunnel") != 1 {
		t.Errorf("pictures are left in the history:\n%s", history)
	}
}

func TestScreen_FollowsTheSizeOfTheTerminal(t *testing.T) {
	s := newShown(t, 120, 40)
	s.draw(evening())
	for _, size := range []face.Size{{80, 24}, {40, 20}, {120, 40}, {20, 5}, {80, 24}} {
		s.Resize(size.Columns, size.Rows)
		s.size = size
		picture := s.draw(evening())
		if got := s.Text(); !strings.HasSuffix(got, picture) {
			t.Errorf("at %v:\n%s", size, got)
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add("survival", "play.example.com:25565", "why", 80, 24, 3, true)
	f.Add("\x1b[2J\u202e\x9b", "生存:\r\n", strings.Repeat("生", 200), 17, 7, 40, false)
	f.Add("\U0001F9D1\u200d\U0001F680\u2764\ufe0f", "a", "\u0301\u0301", 3, 2, 1, true)
	f.Add("", "", "", 0, 0, 0, false)
	f.Fuzz(func(t *testing.T, name, address, reason string, columns, rows, ports int, style bool) {
		columns, rows, ports = columns&0xff, rows&0x7f, ports&0x3f
		s := evening()
		s.Device.Name, s.Panel.URL, s.Panel.Reason = name, address, reason
		s.Panel.Connected = style
		s.Servers[0].Address = address
		s.Notes[0].Text = reason
		states := []agent.PortState{agent.PortOpen, agent.PortNoGame, agent.PortOpening, agent.PortFailed, agent.PortPaused, "other"}
		for i := range ports {
			p := port(int64(i), name, "udp", "1", "2")
			p.PublicAddress, p.LocalAddress, p.PublicAddresses = address, address, []string{address}
			p.State, p.Reason, p.TargetReason = states[i%len(states)], reason, reason
			p.Players, p.ToPlayers, p.ToPlayersPerSecond = i*1000, 5, float64(i)*1e9
			s.Tunnels = append(s.Tunnels, p)
		}
		got := face.Render(s, "", face.Size{Columns: columns, Rows: rows}, face.Style{Color: style, Unicode: style}, now)
		if len(got) > max(rows-1, 1) {
			t.Errorf("%d rows for a terminal of %d", len(got), rows)
		}
		for _, row := range got {
			text := strip(row)
			if width := terminal.Width(text); width > columns {
				t.Errorf("%d columns for a terminal of %d: %q", width, columns, row)
			}
			if terminal.Escape(text) != text || !utf8.ValidString(row) {
				t.Errorf("the terminal would act on %q", row)
			}
		}
	})
}
