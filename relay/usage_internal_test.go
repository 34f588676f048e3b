package relay

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/meter"
)

var usageBegan = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// usageTest is a tunnel server's usage without its ports, and a panel that adds it up.
type usageTest struct {
	t *testing.T
	*usage
	now    time.Time
	log    strings.Builder
	stored map[uuid.UUID]int64
	sums   map[int64]meter.Usage
	// Of all reports, and the last one.
	seconds int64
	last    types.UsageReport
}

func newUsageTest(t *testing.T, path string) *usageTest {
	u := &usageTest{t: t, now: usageBegan, stored: map[uuid.UUID]int64{}, sums: map[int64]meter.Usage{}}
	u.start(path)
	return u
}

// start begins another process, as after a kill of the one before.
func (u *usageTest) start(path string) {
	u.usage = newUsage(nil, 0, NewUsageBacklog(path, slog.New(slog.NewTextHandler(&u.log, nil))), u.now)
}

// carry counts a byte up for each allocation in ten seconds.
func (u *usageTest) carry(allocations ...int64) {
	taken := map[int64]meter.Usage{}
	for _, id := range allocations {
		taken[id] = meter.Usage{Traffic: meter.Traffic{UploadBytes: 1}}
	}
	began := u.now
	u.now = u.now.Add(10 * time.Second)
	u.add(taken, began, u.now)
	u.bound()
}

// tickWithoutPorts is tick where nothing more was counted.
func (u *usageTest) tickWithoutPorts(takes bool) {
	u.taken = u.now
	u.tick(u.now, takes)
}

// receive has the panel store at most so many reports.
func (u *usageTest) receive(most int) {
	for range most {
		report := u.Next(u.now)
		if report == nil {
			return
		}
		if len(report.Allocations) > types.MaxUsageReportAllocations {
			u.t.Fatalf("a report of %d allocations", len(report.Allocations))
		}
		u.store(*report)
		u.Stored(types.UsageAck{Epoch: report.Epoch, Sequence: report.Sequence})
	}
}

func (u *usageTest) store(report types.UsageReport) {
	if report.Sequence <= u.stored[report.Epoch] {
		return
	}
	u.stored[report.Epoch] = report.Sequence
	for id, of := range (keptReport{Report: report}).span().usage {
		u.sums[id] = addLater(u.sums[id], of)
	}
	u.seconds += report.Seconds
	u.last = report
}

// check compares the bytes of each allocation with those that were carried.
func (u *usageTest) check(want uint64, allocations ...int64) {
	u.t.Helper()
	for _, id := range allocations {
		if got := u.sums[id].UploadBytes; got != want {
			u.t.Fatalf("%d bytes of allocation %d, want %d", got, id, want)
		}
	}
}

// counts returns how many counts wait.
func (u *usageTest) counts() (n int) {
	for _, s := range u.spans {
		n += len(s.usage)
	}
	return n
}

func (u *usageTest) lines(path string) int {
	u.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		u.t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

func allocations(n int) (ids []int64) {
	for id := range n {
		ids = append(ids, int64(id)+1)
	}
	return ids
}

const always = 1 << 30

// While the panel is away counts get coarser, but none is lost.
func TestUsage_IsBoundedWithoutLoss(t *testing.T) {
	u := newUsageTest(t, "")
	u.most = 100
	const minutes = 600
	for range minutes * 6 {
		u.carry(1, 2)
		if n := u.counts(); n > u.most {
			t.Fatalf("%d counts", n)
		}
		u.save(u.now)
	}
	u.receive(always)
	u.check(minutes*6, 1, 2)
	if u.seconds != minutes*60 || u.counts() != 0 {
		t.Errorf("%d seconds, %d counts left", u.seconds, u.counts())
	}
	if u.last.Seconds != 60 || u.last.AgeSeconds != 0 {
		t.Errorf("the last minute is one of %d s, %d s ago", u.last.Seconds, u.last.AgeSeconds)
	}
}

// An allocation that is counted later must not move others to another report: the file may
// have the reports as they were before.
func TestUsage_KeepsEachAllocationInItsReport(t *testing.T) {
	u := newUsageTest(t, "")
	all := allocations(2_500)
	u.carry(all[1:2_400]...)
	u.carry(all...)
	for _, s := range u.spans {
		if len(s.usage) > types.MaxUsageReportAllocations {
			t.Errorf("a report of %d allocations", len(s.usage))
		}
	}
	if len(u.spans) != 3 || u.counts() != len(all) {
		t.Errorf("%d reports of %d counts", len(u.spans), u.counts())
	}
	if _, ok := u.spans[2].usage[all[0]]; !ok {
		t.Error("the new allocation is not in the last report")
	}
	u.most = 10_000
	for range 6 * 120 {
		u.carry(all...)
	}
	u.save(u.now)
	u.receive(always)
	u.check(2+6*120, all[1:2_400]...)
	u.check(1+6*120, all[2_400:]...)
}

func TestUsage_IsKeptForTheProcessAfterAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "server.usage.jsonl")
	u := newUsageTest(t, path)
	all := allocations(1_500)
	want := uint64(0)
	for range 5 { // Processes.
		for range 20 {
			u.carry(all...)
			u.tickWithoutPorts(false)
			want++
		}
		u.carry(all...) // Lost.
		u.start(path)
	}
	stale, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The panel is back, and this one is killed too, halfway and at the end.
	u.receive(3)
	u.start(path)
	u.receive(always)
	u.check(want, all...)
	u.start(path)
	u.receive(always)
	u.check(want, all...)
	u.tickWithoutPorts(true)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
	// As if it had come back.
	if err := os.WriteFile(path, stale, 0o600); err != nil {
		t.Fatal(err)
	}
	u.start(path)
	u.receive(always)
	u.check(want, all...)
	if u.log.Len() > 0 {
		t.Error(u.log.String())
	}
}

// A report on its way at the kill may arrive after those of the next process.
func TestUsage_CountsOnceWhatArrivesAfterTheNextProcess(t *testing.T) {
	for name, until := range map[string]func(*usageTest, int) bool{
		"as it was, with less":   func(_ *usageTest, n int) bool { return n == 5 },
		"as parts of one merged": func(u *usageTest, _ int) bool { return u.merged },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "usage.jsonl")
			u := newUsageTest(t, path)
			u.most = 40
			carried := 0
			for !until(u, carried) {
				u.tickWithoutPorts(false)
				u.carry(1)
				carried++
			}
			late := u.Next(u.now)
			if late == nil { // It waits for the file.
				u.tickWithoutPorts(true)
				late = u.Next(u.now)
			}
			u.start(path)
			u.receive(1)
			u.store(*late)
			u.receive(always)
			if got := u.sums[1].UploadBytes; got != uint64(carried) && got != uint64(carried-1) {
				t.Errorf("%d bytes, want %d, or one less", got, carried)
			}
		})
	}
}

func TestUsage_ItsFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	u := newUsageTest(t, path)
	all := allocations(200)
	u.most = 2_000
	var largest int64
	for range 6 * 300 {
		u.carry(all...)
		u.tickWithoutPorts(false)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, info.Size())
	}
	if most := int64(2*200*u.most + backlogGrowth); largest > most {
		t.Errorf("%d bytes, want %d at most", largest, most)
	}
	u.start(path)
	u.receive(always)
	u.check(6*300, all...)
}

func TestUsage_IsCountedWhereItCannotBeKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "usage.jsonl")
	u := newUsageTest(t, path)
	carry := func(n int) {
		for range n {
			u.carry(1)
			u.tickWithoutPorts(false)
		}
	}
	carry(3)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // In the place of the directory.
		t.Fatal(err)
	}
	carry(10)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	carry(2)
	if n := strings.Count(u.log.String(), "cannot be kept"); n != 1 || !strings.Contains(u.log.String(), "is kept again") {
		t.Errorf("logged %d times: %s", n, u.log.String())
	}
	u.start(path) // All of it is in the file.
	u.receive(always)
	u.check(15, 1)
}

func TestUsage_ReadsWhatAKillHasLeftHalfWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	u := newUsageTest(t, path)
	u.carry(1)
	u.tickWithoutPorts(false)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(data, data[:len(data)/2]...), 0o600); err != nil {
		t.Fatal(err)
	}
	u.start(path)
	u.carry(1)
	u.tickWithoutPorts(false)
	if n := u.lines(path); n != 2 {
		t.Errorf("%d lines", n)
	}
	u.start(path)
	u.receive(always)
	u.check(2, 1)
}

// Whatever has become of a file, the lines that are whole count, and nothing is sent that
// would end the channel.
func TestUsage_ReadsWhatIsWholeOfADamagedFile(t *testing.T) {
	epoch := uuid.NewString()
	line := func(sequence, seconds, bytes int) string {
		return fmt.Sprintf(`{"ended":"2020-01-01T00:00:00Z","report":{"type":"usage","epoch":%q,"sequence":%d,"ageSeconds":0,"seconds":%d,`+
			`"allocations":[{"id":1,"players":0,"peakPlayers":0,"joins":0,"downloadBytes":0,"uploadBytes":%d,"downloadDatagrams":0,"uploadDatagrams":0}]}}`+"\n",
			epoch, sequence, seconds, bytes)
	}
	for name, damage := range map[string]string{
		"nothing": "", "zeros": strings.Repeat("\x00", 512) + "\n", "other encodings": "\xff\xfe{\x00\n", "half a line": line(9, 10, 9)[:80] + "\n",
		"no number": line(0, 10, 9), "no time": line(9, 0, 9), "years": line(9, 1<<40, 9), "fewer than none": line(9, 10, -9), "too much": line(9, 10, 1<<60),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "usage.jsonl")
			if err := os.WriteFile(path, []byte(damage+line(1, 10, 1)+damage+line(2, 10, 1)+damage), 0o644); err != nil {
				t.Fatal(err)
			}
			u := newUsageTest(t, path)
			if n := strings.Count(u.log.String(), "cannot be read"); n > 1 || (n == 1) != (damage != "") {
				t.Errorf("logged: %s", u.log.String())
			}
			u.receive(1)
			if age := u.Next(u.now).AgeSeconds; age > 366*24*3600 {
				t.Errorf("a report of %d s ago", age)
			}
			u.tickWithoutPorts(false) // Written anew: for nobody else to read.
			if info, err := os.Stat(path); damage != "" && (err != nil || info.Mode().Perm() != 0o600 || u.lines(path) != 1) {
				t.Errorf("%v, %v, %d lines", info.Mode(), err, u.lines(path))
			}
			u.receive(always)
			u.check(2, 1)
			if len(u.stored) != 1 || u.stored[uuid.MustParse(epoch)] != 2 {
				t.Errorf("stored %v", u.stored)
			}
		})
	}
}

// By mistake, two processes may have one file. Nothing counts twice.
func TestUsage_OfTwoProcessesWithOneFileCountsOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.jsonl")
	u := newUsageTest(t, path)
	u.carry(1)
	u.tickWithoutPorts(false)
	first := u.usage
	u.start(path) // The second, beside it.
	second := u.usage
	for _, process := range []*usage{second, first} {
		u.usage = process
		u.receive(always)
		u.tickWithoutPorts(true)
		u.carry(1)
		u.receive(always)
		u.tickWithoutPorts(true)
	}
	u.check(3, 1)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestUsage_OfTwoPortsAtATimeIsThatOfBoth(t *testing.T) {
	a := meter.Usage{Traffic: meter.Traffic{UploadBytes: 1}, Joins: 1, PeakPlayers: 3, Players: 3}
	b := meter.Usage{Traffic: meter.Traffic{UploadBytes: 2}, Joins: 2, PeakPlayers: 2, Players: 2}
	want := meter.Usage{Traffic: meter.Traffic{UploadBytes: 3}, Joins: 3, PeakPlayers: 5, Players: 5}
	for _, got := range []meter.Usage{addPort(a, b), addPort(b, a)} {
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}
