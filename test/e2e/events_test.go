package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// TestEvents_ComeAtOnceThroughNGINX runs the command of docs/events.md.
func TestEvents_ComeAtOnceThroughNGINX(t *testing.T) {
	w := sharedFor(t)
	port := freePort(t)
	// With nothing but nginx's defaults.
	runNginx(t, clustertest.Dir(t), port, fmt.Sprintf("server { listen 127.0.0.1:%d; location / { proxy_pass %s; } }", port, w.panel.URL))

	key, err := w.panel.API.CreateAPIKeyWithResponse(t.Context(), types.APIKeyCreate{
		Name: "events", Scopes: []types.APIKeyScope{types.ScopeRead, types.ScopeAdmin},
	})
	if err != nil || key.JSON201 == nil {
		t.Fatalf("create key: %v", err)
	}
	guide, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^curl -N .*$`).FindString(string(guide))
	line = strings.Replace(line, "https://panel.example.com", "http://"+loopback(port), 1)
	curl := exec.CommandContext(within(t, time.Minute), find(t, "bash"), "-c", "exec "+line)
	curl.Env = append(os.Environ(), "KEY="+key.JSON201.Key)
	out, err := curl.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := curl.Start(); err != nil {
		t.Fatal(err)
	}
	events := make(chan string, 10_000)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				events <- name
			}
		}
	}()
	defer func() {
		_ = curl.Process.Kill() // A stream has no end of its own.
		<-read
		_ = curl.Wait()
	}()
	if first := await.Receive(t, events, "first event"); first != "ready" {
		t.Fatalf("the first event is %q", first)
	}
	began := time.Now()
	made, err := w.panel.API.CreateDeviceWithResponse(t.Context(), types.DeviceCreate{Name: "through nginx"})
	if err != nil || made.JSON201 == nil {
		t.Fatalf("create device: %v", err)
	}
	for event := ""; event != "device.created"; {
		if event = await.Receive(t, events, "event of the device"); event == "" {
			t.Fatal("the stream has ended")
		}
	}
	t.Logf("through nginx after %v", time.Since(began))
}
