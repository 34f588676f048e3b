package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
	"github.com/eclitunnel/eclitunnel/test/lib/documents"
)

// TestGuides_CommandsDoWhatTheySay types the commands of the guides that the API explorer
// shows, with this panel's address and account in place of the examples.
func TestGuides_CommandsDoWhatTheySay(t *testing.T) {
	bash := find(t, "bash")
	find(t, "curl")
	find(t, "jq")
	w := ownWorld(t)
	for name, prints := range map[string][]string{
		"first-tunnel.md":          {`"userCode": "`, `"name": "home-server"`, "true\n", `"status": "listening"`, `"success":true`},
		"unattended-enrollment.md": {"127.0.0.1:"},
		"apply.md": {
			"+ minecraft: tcp to 127.0.0.1:25565", "+ valheim: udp to 127.0.0.1:2456-2458", "2 to create.", "players join at 127.0.0.1:", "2 created.",
			"2 unchanged.", "options.maxPlayersPerSource: 3 -> 5", "1 changed, 1 unchanged.", "1 deleted, 1 unchanged.", `"labels":{"game":"minecraft","managed-by":"apply"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := clustertest.Dir(t)
			text, err := os.ReadFile(filepath.Join("..", "..", "docs", "guides", name))
			if err != nil {
				t.Fatal(err)
			}
			bin, err := filepath.Abs(binaries)
			if err != nil {
				t.Fatal(err)
			}
			guide := documents.Page(name, string(text))
			if name == "apply.md" { // It needs a device, which the other guide creates.
				device, err := os.ReadFile(filepath.Join("..", "..", "docs", "guides", "unattended-enrollment.md"))
				if err != nil {
					t.Fatal(err)
				}
				guide.Blocks = append(documents.Page("", string(device)).Blocks[:2], append([]string{
					"export ECLITUNNEL_PANEL=https://panel.example.com ECLITUNNEL_TOKEN_FILE=game-7.token",
				}, guide.Blocks...)...)
			}
			cmd := exec.CommandContext(within(t, time.Minute), bash, "-c", guideScript(guide, w))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_STATE_HOME="+dir, "PATH="+bin+":"+os.Getenv("PATH"))
			output, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, output)
			}
			for _, want := range prints {
				if !strings.Contains(string(output), want) {
					t.Errorf("it does not print %s:\n%s", want, output)
				}
			}
		})
	}
}

// guideScript returns a guide's commands as one script, in which the agent, which runs in a
// terminal of its own, runs beside the others.
func guideScript(guide documents.Document, w *world) string {
	var script strings.Builder
	script.WriteString("set -euo pipefail\nAGENT=\ntrap 'kill $AGENT || true; wait || true' EXIT\n")
	for _, block := range guide.Blocks {
		if strings.HasPrefix(block, "eclitunnel run") {
			block = strings.TrimSpace(block) + " >agent.log 2>&1 &\nAGENT=$!"
		}
		script.WriteString(block + "\n")
	}
	return strings.NewReplacer(
		"https://panel.example.com", w.panel.URL, "you@example.com", cluster.AdminEmail, "a good long one", w.panel.Password,
	).Replace(script.String())
}
