package server_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// What a panel that was killed has left is reported by the next one, and then removed.
func TestTunnelServer_ReportsTheUsageOfAPanelThatWasKilled(t *testing.T) {
	dir := dataDir(t)
	file := filepath.Join(dir, "tunnel-server.usage.jsonl")
	line := fmt.Sprintf(`{"ended":"2026-03-01T10:00:00Z","report":{"type":"usage","epoch":%q,"sequence":1,"ageSeconds":0,"seconds":10,"allocations":[]}}`+"\n", uuid.New())
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	servertest.Start(t, func(o *server.Options) { o.Database.DataDir = dir })
	controltest.Eventually(t, "the file is removed", func() bool {
		_, err := os.Stat(file)
		return errors.Is(err, fs.ErrNotExist)
	})
}
