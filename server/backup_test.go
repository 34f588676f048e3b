package server_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// postgresTool runs a Postgres program on the embedded database of a
// running panel, as docs/operations.md tells operators to.
func postgresTool(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	url, err := os.ReadFile(filepath.Join(dir, "database.url"))
	if err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program); len(found) > 0 {
		program = found[len(found)-1]
	}
	cmd := exec.CommandContext(t.Context(), program, append(args, "--no-owner", "-d", string(url))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

func TestPanel_RestoredFromABackupAcceptsItsDevices(t *testing.T) {
	backup := filepath.Join(t.TempDir(), "eclitunnel.dump")
	damaged, fresh := dataDir(t), dataDir(t)
	p := servertest.Start(t, func(o *server.Options) { o.Database.DataDir = damaged })
	device := p.Enroll("gaming-rig")
	controltest.Next[types.ClientSnapshot](p.Connect(device))
	created := allocate(t, p.Admin(), device, types.CreateTCP)
	postgresTool(t, damaged, "pg_dump", "-Fc", "-f", backup)
	p.Stop()

	restored := servertest.Start(t, func(o *server.Options) { o.Database.DataDir = fresh })
	postgresTool(t, fresh, "pg_restore", "--clean", "--if-exists", "--single-transaction", backup)
	restored.Restart()
	// Its token was signed with a restored key.
	snapshot := controltest.Next[types.ClientSnapshot](restored.Connect(device))
	if len(snapshot.Allocations) != 1 || snapshot.Allocations[0].ID != created.ID {
		t.Errorf("allocations after the restore: %+v", snapshot.Allocations)
	}
}
