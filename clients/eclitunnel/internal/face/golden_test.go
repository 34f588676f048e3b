package face_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/clients/agent"
	"github.com/eclitunnel/eclitunnel/clients/eclitunnel/internal/face"
)

var update = flag.Bool("update", false, "write the pictures in testdata")

func TestMain(m *testing.M) {
	time.Local = time.UTC // Notes have the time of day.
	os.Exit(m.Run())
}

func many() agent.Snapshot {
	s := evening()
	for i := range int64(30) {
		p := port(100+i, fmt.Sprintf("arena %d", i+1), "tcp", fmt.Sprint(30000+i), fmt.Sprint(4000+i))
		p.Players = int(i % 3)
		s.Tunnels = append(s.Tunnels, p)
	}
	return s
}

func lost() agent.Snapshot {
	s := evening()
	s.Panel.Connected, s.Panel.Reason = false, "cannot reach the panel at https://panel.example.com: connection refused; nothing listens there"
	s.Servers[0].State, s.Servers[0].Reason = agent.LinkDown, "tunnel server fra1.example.com:7443: no answer"
	return s
}

func names() agent.Snapshot {
	s := evening()
	s.Device.Name = "家のサーバー"
	for i, name := range []string{"生存世界", "\U0001F9D1\u200d\U0001F680 space", "e\u0301te\u0301", strings.Repeat("long ", 20), "\x1b[2J\u202eevil\nname"} {
		s.Tunnels[i].Name = name
	}
	return s
}

func TestRender_Pictures(t *testing.T) {
	for name, c := range map[string]struct {
		s     agent.Snapshot
		gone  string
		size  face.Size
		style face.Style
	}{
		"evening-80x24":  {evening(), "", face.Size{Columns: 80, Rows: 24}, face.Style{Unicode: true}},
		"evening-120x40": {evening(), "", face.Size{Columns: 120, Rows: 40}, face.Style{Unicode: true}},
		"evening-40x20":  {evening(), "", face.Size{Columns: 40, Rows: 20}, face.Style{Unicode: true}},
		"colors-80x24":   {evening(), "", face.Size{Columns: 80, Rows: 24}, face.Style{Unicode: true, Color: true}},
		"ascii-80x24":    {evening(), "", face.Size{Columns: 80, Rows: 24}, face.Style{}},
		"many-80x24":     {many(), "", face.Size{Columns: 80, Rows: 24}, face.Style{Unicode: true}},
		"many-40x12":     {many(), "", face.Size{Columns: 40, Rows: 12}, face.Style{Unicode: true}},
		"lost-80x24":     {lost(), "", face.Size{Columns: 80, Rows: 24}, face.Style{Unicode: true}},
		"names-80x24":    {names(), "", face.Size{Columns: 80, Rows: 24}, face.Style{Unicode: true}},
		"gone-80x24":     {evening(), "the agent has ended; waiting for it", face.Size{Columns: 80, Rows: 24}, face.Style{Unicode: true}},
		"none-80x24":     {agent.Snapshot{Panel: agent.PanelView{URL: "https://panel.example.com"}}, "", face.Size{Columns: 80, Rows: 24}, face.Style{Unicode: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := strings.Join(face.Render(c.s, c.gone, c.size, c.style, now), "\n") + "\n"
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s; see it, and write it with -update:\n%s", file, got)
			}
		})
	}
}

func TestRender_TheGuideShowsIt(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "guides", "watching.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"evening-80x24", "evening-40x20"} {
		picture, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(guide), "```text\n"+string(picture)+"```\n") {
			t.Errorf("docs/guides/watching.md does not show testdata/%s.txt", name)
		}
	}
}
