package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
)

// loginCode is how the code of a login looks: that of an enrollment has its letters first.
var loginCode = regexp.MustCompile(`\b[0-9]{4}-[A-Z]{4}\b`)

// approveLogin runs a command of an agent that has a person log in, approves the code that it shows, and returns what
// the command printed.
func approveLogin(ctx context.Context, t *testing.T, w *world, agent *cluster.Agent, args ...string) string {
	t.Helper()
	process, err := cluster.StartProcess(agent.Name, agent.Command(ctx, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	clustertest.StopAtEnd(t, process)
	var code string
	err = cluster.Until(ctx, "the agent shows the code of a login", func(context.Context) (bool, error) {
		code = loginCode.FindString(process.Output())
		return code != "", nil
	})
	if err != nil {
		t.Fatalf("%v:\n%s", err, process.Output())
	}
	approved, err := w.panel.API.ApproveDeviceLoginWithResponse(ctx, types.DeviceLoginApproval{UserCode: code})
	if err != nil || approved.JSON200 == nil {
		t.Fatalf("approve %s: %v: %s", code, err, approved.Body)
	}
	if exit, err := process.Wait(ctx); err != nil || exit != 0 {
		t.Fatalf("exit code %d, %v:\n%s", exit, err, process.Output())
	}
	return process.Output()
}

func (w *world) keys(ctx context.Context, t *testing.T) []types.APIKey {
	t.Helper()
	listed, err := w.panel.API.ListAPIKeysWithResponse(ctx, &types.ListAPIKeysParams{})
	if err != nil || listed.JSON200 == nil {
		t.Fatalf("list keys: %v: %s", err, listed.Body)
	}
	return *listed.JSON200
}

// ends runs a command of an agent to its end, which has an exit code, and returns what it printed.
func ends(ctx context.Context, t *testing.T, agent *cluster.Agent, want int, args ...string) string {
	t.Helper()
	process, err := cluster.StartProcess(agent.Name, agent.Command(ctx, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	clustertest.StopAtEnd(t, process)
	if got, err := process.Wait(ctx); err != nil || got != want {
		t.Fatalf("%v: exit code %d, want %d, %v:\n%s", args, got, want, err, process.Output())
	}
	return process.Output()
}

// A person logs in, enrolls a machine with one command, and logs out.
func TestLogin_EnrollsWithoutASecondCode(t *testing.T) {
	w := sharedFor(t)
	ctx := within(t, patience)
	agent := cluster.NewAgent(binaries, t.TempDir(), "personal", nil)
	before := len(w.keys(ctx, t))
	run := func(exit int, args ...string) string {
		t.Helper()
		return ends(ctx, t, agent, exit, args...)
	}
	panel := []string{"--panel", w.panel.URL}
	run(6, append([]string{"whoami"}, panel...)...)
	if out := approveLogin(ctx, t, w, agent, append([]string{"login", "--admin"}, panel...)...); strings.Contains(out, "etk_") {
		t.Errorf("the key is printed:\n%s", out)
	}
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(agent.Config()), "login-*.json"))
	if len(files) != 1 {
		t.Fatalf("stored %q", files)
	}
	if info, err := os.Stat(files[0]); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the login's file: %v, %v", info, err)
	}
	if out := run(0, append([]string{"whoami"}, panel...)...); !strings.Contains(out, "eclitunnel on ") || !strings.Contains(out, "enrollment, admin") {
		t.Errorf("whoami says:\n%s", out)
	}
	if out := run(0, append([]string{"enroll", "--kind", "server", "--name", "personal"}, panel...)...); !strings.Contains(out, "Enrolled as personal") ||
		strings.Contains(out, "must be approved") {
		t.Errorf("enrolled with:\n%s", out)
	}
	run(0, append([]string{"logout"}, panel...)...)
	run(6, append([]string{"whoami"}, panel...)...)
	if after := len(w.keys(ctx, t)); after != before {
		t.Errorf("%d keys are left, of %d", after, before)
	}

	// Without a login the command asks for one, and ends it.
	other := cluster.NewAgent(binaries, t.TempDir(), "other", nil)
	out := approveLogin(ctx, t, w, other, append([]string{"enroll", "--kind", "server", "--name", "other"}, panel...)...)
	if !strings.Contains(out, "Enrolled as other") || len(w.keys(ctx, t)) != before {
		t.Errorf("enrolled with:\n%s", out)
	}

	// A login that is revoked on the panel says what to do.
	approveLogin(ctx, t, w, agent, append([]string{"login"}, panel...)...)
	for _, key := range w.keys(ctx, t) {
		if strings.HasPrefix(key.Name, "eclitunnel on ") {
			if _, err := w.panel.API.DeleteAPIKeyWithResponse(ctx, key.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, args := range [][]string{{"whoami"}, {"enroll", "--force"}} {
		if out := run(5, append(args, panel...)...); !strings.Contains(out, `run "eclitunnel login" again`) {
			t.Errorf("%v says:\n%s", args, out)
		}
	}
}
