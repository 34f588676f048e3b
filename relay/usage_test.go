package relay_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// often makes a tunnel server report usage without delay.
func often(o *relay.Options) { o.UsageInterval = time.Millisecond }

// bytesEachWay is met once so many bytes were reported each way, for a game that echoes.
func bytesEachWay(n int64) func(types.AllocationUsage) bool {
	return func(u types.AllocationUsage) bool { return u.DownloadBytes == n && u.UploadBytes == n }
}

func TestServer_ReportsDatagramsAndThePlayersWhoAreProven(t *testing.T) {
	g := startUDPGameChanged(t, relay.PortLimits{}, echo, 0, often)
	player := g.join("127.0.2.1") // "join" and "play".
	g.ask(g.player("127.0.2.2"), "query")
	g.panel.AwaitUsage(2, bytesEachWay(13))
	want := types.AllocationUsage{
		ID: 2, Players: 1, PeakPlayers: 1, Joins: 1,
		DownloadBytes: 13, UploadBytes: 13, DownloadDatagrams: 3, UploadDatagrams: 3,
	}
	if got := g.panel.Usage()[2]; got != want {
		t.Errorf("used %+v, want %+v", got, want)
	}
	// What was carried by an allocation that is removed is reported too, and that its
	// players have left.
	g.ask(player, "more")
	g.panel.Remove(2)
	g.panel.AwaitUsage(2, func(u types.AllocationUsage) bool {
		return u.UploadBytes == 17 && u.DownloadBytes == 17 && u.Players == 0
	})
}

func TestServer_ReportsUsageOnceWhateverBecomesOfItsChannel(t *testing.T) {
	g := startUDPGameChanged(t, relay.PortLimits{}, echo, 0, often)
	player := g.player("127.0.2.1")
	g.ask(player, "1")
	g.panel.AwaitUsage(2, bytesEachWay(1))
	g.panel.HoldUsage(true)
	g.ask(player, "22")
	g.panel.AwaitUsage(2, bytesEachWay(3)) // Stored, but not acknowledged.
	g.panel.Disconnect(channel.CloseRestarting, errTest)
	g.panel.AwaitDisconnected()
	g.ask(player, "333")
	g.panel.HoldUsage(false)
	g.panel.Reconnect()
	g.panel.AwaitUsage(2, bytesEachWay(6))
	g.ask(player, "4444")
	g.panel.AwaitUsage(2, bytesEachWay(10))
	if u := g.panel.Usage()[2]; u.Joins != 1 || u.UploadDatagrams != 4 || u.DownloadDatagrams != 4 {
		t.Errorf("used %+v", u)
	}
}

func TestServer_LeavesUsageThatIsNotStoredToItsNextProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "usage.jsonl")
	keep := func(o *relay.Options) {
		often(o)
		o.UsageBacklog = relay.NewUsageBacklog(file, nil)
	}
	g := startUDPGameChanged(t, relay.PortLimits{}, echo, 0, keep)
	player := g.player("127.0.2.1")
	g.panel.HoldUsage(true)
	g.ask(player, "1")
	g.panel.AwaitUsage(2, bytesEachWay(1))
	g.panel.Disconnect(channel.CloseRestarting, errTest)
	g.panel.AwaitDisconnected()
	g.ask(player, "22")
	if err := g.server.Stop(); err != nil {
		t.Fatal(err)
	}
	g.panel.HoldUsage(false)
	g.panel.Reconnect()
	next := relaytest.Start(t, g.panel, keep)
	g.panel.AwaitUsage(2, bytesEachWay(3))
	// A process that ends in order has reported everything.
	if err := next.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file is left: %v", err)
	}
}

func TestServer_KeepsUsageWhileNoPanelStoresIt(t *testing.T) {
	for name, away := range map[string]func(*udpGame){
		"no channel": func(g *udpGame) {
			g.panel.Disconnect(channel.CloseRestarting, errTest)
			g.panel.AwaitDisconnected()
		},
		"the panel stores nothing": func(g *udpGame) { g.panel.IgnoreUsage(true) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, killed := filepath.Join(dir, "usage.jsonl"), filepath.Join(dir, "killed.jsonl")
			in := func(path string) func(*relay.Options) {
				return func(o *relay.Options) {
					often(o)
					o.UsageBacklog = relay.NewUsageBacklog(path, nil)
				}
			}
			g := startUDPGameChanged(t, relay.PortLimits{}, echo, 0, in(file))
			player := g.player("127.0.2.1")
			g.ask(player, "1")
			g.panel.AwaitUsage(2, bytesEachWay(1))
			away(g)
			g.ask(player, "22")
			awaitBytes(t, file, 2)
			g.ask(player, "333")
			left := awaitBytes(t, file, 5)
			// The process may be killed now: this is what its next one has.
			if err := os.WriteFile(killed, left, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := g.server.Stop(); err != nil {
				t.Fatal(err)
			}
			g.panel.IgnoreUsage(false)
			g.panel.Reconnect()
			next := relaytest.Start(t, g.panel, in(killed))
			g.panel.AwaitUsage(2, bytesEachWay(6))
			await.Until(t, "the file is removed", func() bool {
				_, err := os.Stat(killed)
				return errors.Is(err, fs.ErrNotExist)
			})
			if err := next.Stop(); err != nil {
				t.Fatal(err)
			}
			// An old copy of the file is reported, and counts nothing.
			if err := os.WriteFile(killed, left, 0o600); err != nil {
				t.Fatal(err)
			}
			reports := g.panel.UsageReports()
			relaytest.Start(t, g.panel, in(killed))
			g.panel.AwaitUsageReports(reports + 1)
			if got := g.panel.Usage()[2]; !bytesEachWay(6)(got) {
				t.Errorf("used %+v", got)
			}
		})
	}
}

// awaitBytes returns the content of a file of reports once their allocation has carried so
// many bytes each way.
func awaitBytes(t *testing.T, file string, want int64) (content []byte) {
	t.Helper()
	await.Until(t, "usage is kept", func() bool {
		content, _ = os.ReadFile(file)
		sums := map[int64]types.AllocationUsage{} // By sequence.
		for line := range bytes.Lines(content) {
			var kept struct{ Report types.UsageReport }
			if json.Unmarshal(line, &kept) != nil {
				return false
			}
			sums[kept.Report.Sequence] = kept.Report.Allocations[0]
		}
		var sum types.AllocationUsage
		for _, of := range sums {
			sum.UploadBytes += of.UploadBytes
			sum.DownloadBytes += of.DownloadBytes
		}
		return bytesEachWay(want)(sum)
	})
	return content
}

func TestServer_ReportsTheLastUsageBeforeItEnds(t *testing.T) {
	g := startUDPGameChanged(t, relay.PortLimits{}, echo, 0, nil) // It would report every 10 s.
	g.ask(g.player("127.0.2.1"), "hello")
	if err := g.server.Stop(); err != nil {
		t.Fatal(err)
	}
	g.panel.AwaitUsage(2, bytesEachWay(5))
}

func TestServer_ReportsNoUsageToAPanelThatTakesNone(t *testing.T) {
	g := startUDPGameChanged(t, relay.PortLimits{}, echo, 0, func(o *relay.Options) {
		often(o)
	})
	g.panel.RefuseUsage()
	g.panel.Disconnect(channel.CloseRestarting, errTest)
	g.panel.AwaitDisconnected()
	g.panel.Reconnect()
	g.panel.AwaitReport(2, types.ReportReady)
	g.ask(g.player("127.0.2.1"), "hello")
	g.panel.AwaitPlayers(1) // The panel fails the test if it is sent usage.
}
