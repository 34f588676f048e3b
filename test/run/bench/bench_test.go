//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/run/bench/hop"
	"github.com/eclitunnel/eclitunnel/test/run/bench/measure"
	"github.com/eclitunnel/eclitunnel/test/run/bench/report"
	"github.com/eclitunnel/eclitunnel/test/run/bench/role"
	"github.com/eclitunnel/eclitunnel/test/run/bench/subject"
	"github.com/eclitunnel/eclitunnel/test/run/bench/target"
)

func TestMain(m *testing.M) {
	// What a run starts as processes of their own is this binary.
	if len(os.Args) == 3 {
		if r, ok := roles[os.Args[1]]; ok {
			role.ExitOn("bench", role.Play(r, os.Args[2]))
			return
		}
	}
	goleak.VerifyTestMain(m)
}

// inProcess is what a run starts as processes of their own, in this one.
func inProcess(t *testing.T) []subject.Subject {
	t.Helper()
	game, err := target.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := game.Close(); err != nil {
			t.Error(err)
		}
	})
	addr := game.Addr()
	direct, err := subject.NewDirect(addr)
	if err != nil {
		t.Fatal(err)
	}
	through := hop.Endpoints{Splice: addr, Copy: addr, UDP: addr}
	inner := startHop(t, hop.Options{Next: through})
	outer := startHop(t, hop.Options{Next: inner})
	innerTLS := startHop(t, hop.Options{Next: through, AcceptTLS: true})
	outerTLS := startHop(t, hop.Options{Next: innerTLS, DialTLS: true})
	self := []int{os.Getpid()}
	return []subject.Subject{
		direct,
		{Name: subject.Hop2, TCP: outer.Splice, UDP: outer.UDP, PIDs: self},
		{Name: subject.HopCopy, TCP: outer.Copy, PIDs: self, StreamsOnly: true},
		{Name: subject.HopTLS, TCP: outerTLS.Splice, PIDs: self},
	}
}

func startHop(t *testing.T, o hop.Options) hop.Endpoints {
	t.Helper()
	// Cleanups run when the test's own context is over.
	h, err := hop.Listen(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h.Endpoints()
}

func TestBench_MeasuresEverythingAndVerifiesIt(t *testing.T) {
	var o options
	if err := o.choose(nil); err != nil {
		t.Fatal(err)
	}
	o.Rounds, o.Duration, o.Brief, o.Idle, o.Flows, o.Foreign = 1, 40*time.Millisecond, true, 20, []int{50}, anyShare
	subjects := inProcess(t)
	var progress bytes.Buffer
	b := bench{options: o, progress: &progress}
	var r report.Report
	if err := b.rounds(t.Context(), b.measures(measure.Anywhere), subjects, &r); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	for _, f := range r.Failures {
		if !f.Fatal {
			continue // a busy machine says nothing about the bench
		}
		t.Errorf("%s of %s: %s", f.Measure, f.Subject, f.Reason)
	}
	for _, m := range b.measures(measure.Anywhere) {
		for _, s := range subjects {
			taken := strings.Contains(progress.String(), progressLine(1, 1, m.Name, s.Name))
			if taken != m.Applies(s) {
				t.Errorf("%s of %s: taken %v", m.Name, s.Name, taken)
			}
		}
	}
	hasValue(t, r, report.UDPFlows(50), subject.Hop2, 50)
	hasValue(t, r, report.HalfClose, subject.HopTLS, 1)
	hasValue(t, r, report.Stalled, subject.Hop2, 0)
}

// TestBench_MeasuresOverNetworksOfItsOwn takes root. It measures the plain
// proxies, and ours where binaries have been built.
func TestBench_MeasuresOverNetworksOfItsOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("makes networks")
	}
	if err := cluster.CanPlace(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no network can be made: %v", err)
		}
		t.Skipf("no network can be made: %v", err)
	}
	o := options{Bin: os.Getenv("ECLITUNNEL_BIN"), Uplink: uplinkOwn, Procs: []int{1}}
	subjects := []string{subject.Direct, subject.Hop2}
	if o.Bin != "" {
		subjects = append(subjects, subject.OursProcs(1))
	}
	if err := o.choose(append([]string{"loss", "uplink"}, subjects...)); err != nil {
		t.Fatal(err)
	}
	o.Rounds, o.Duration, o.Brief, o.Foreign = 1, 700*time.Millisecond, true, anyShare
	r, err := benchmark(t.Context(), o, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failures {
		if f.Fatal {
			t.Errorf("%s of %s: %s", f.Measure, f.Subject, f.Reason)
		}
	}
	for _, name := range subjects {
		for _, id := range []report.MetricID{report.UplinkTCPP99, report.UplinkUDPP50, report.UplinkRate} {
			if value(t, r, id, name) <= 0 {
				t.Errorf("%s of %s is nothing", id, name)
			}
		}
		if name != subject.Direct { // Its game is out of reach from the other end of the cable.
			checkLoss(t, r, name)
		}
	}
}

// TestRun_ShortFormMeasuresOursAndPrintsIt is the program as somebody runs it, with
// the binaries that have been built.
func TestRun_ShortFormMeasuresOursAndPrintsIt(t *testing.T) {
	bin := os.Getenv("ECLITUNNEL_BIN")
	if bin == "" {
		t.Skip("ECLITUNNEL_BIN names no binaries")
	}
	file := filepath.Join(t.TempDir(), "run.json")
	var table bytes.Buffer
	err := run(t.Context(), []string{
		"--short", "--bin", bin, "--uplink", "off", "--json", file,
		"--only", "hop2,ours,ours-plain,download,joins,udp-rtt,half-close",
	}, &table, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{subject.Hop2, subject.Ours, subject.OursPlain} {
		if value(t, r, report.Download, name) <= 0 || value(t, r, report.Joins, name) <= 0 {
			t.Errorf("%s moves nothing", name)
		}
		hasValue(t, r, report.HalfClose, name, 1)
	}
	if value(t, r, report.UDPIdleP50, subject.Ours) <= 0 {
		t.Error("no datagram comes back")
	}
	var again bytes.Buffer
	if err := run(t.Context(), []string{"--from", file}, &again, t.Output()); err != nil {
		t.Fatal(err)
	}
	if again.String() != table.String() || !strings.Contains(table.String(), "half-close passed on") {
		t.Errorf("printed first\n%s\nand then\n%s", &table, &again)
	}
}

// checkLoss checks what can be said of how a subject stands packets that get lost.
func checkLoss(t *testing.T, r report.Report, name string) {
	t.Helper()
	for _, percent := range report.Losses {
		m := report.Loss(percent)
		p50, p99, answered := value(t, r, m.P50, name), value(t, r, m.P99, name), value(t, r, m.Answered, name)
		if p50 <= 0 || p99 < p50 || answered < 50 || answered > 100 {
			t.Errorf("%s at %d %% lost: p50 %v µs, p99 %v µs, %v %% answered", name, percent, p50, p99, answered)
		}
		if percent > 0 && value(t, r, m.Ratio, name) <= 0 {
			t.Errorf("%s at %d %% lost is not compared", name, percent)
		}
		// By chance it happens once in ten million times.
		if percent == 3 && answered == 100 {
			t.Errorf("%s: nothing is lost", name)
		}
	}
}

func hasValue(t *testing.T, r report.Report, id report.MetricID, subject string, want float64) {
	t.Helper()
	if got := value(t, r, id, subject); got != want {
		t.Errorf("%s of %s is %v, want %v", id, subject, got, want)
	}
}

func value(t *testing.T, r report.Report, id report.MetricID, subject string) float64 {
	t.Helper()
	for _, result := range r.Results {
		if result.Metric == id && result.Subject == subject {
			return result.Median
		}
	}
	t.Errorf("%s of %s was not measured", id, subject)
	return 0
}

func TestParse_ChoosesSubjectsAndMeasuresByName(t *testing.T) {
	var usage bytes.Buffer
	f, err := parse([]string{
		"--only", "frp,chisel,hop2,rtt,joins", "--chisel", "bin/chisel",
		"--peer", "name=frp,tcp=127.0.0.1:1,target=127.0.0.1:2,pids=3",
	}, &usage)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.Subjects, " "); got != "frp chisel hop2" {
		t.Errorf("subjects: %s", got)
	}
	if got := strings.Join(f.Measures, " "); got != "rtt-idle rtt-busy joins" {
		t.Errorf("measures: %s", got)
	}
}

func TestParse_RefusesWhatMakesNoRun(t *testing.T) {
	for _, args := range [][]string{
		{"--only", "chisel"},
		{"--rounds", "0"},
		{"--duration", "1ms"},
		{"--uplink", "there"},
		{"--flows", "many"},
		{"--peer", "name=frp"},
		{"--frp", "bin", "--peer", "name=frp,tcp=127.0.0.1:1,target=127.0.0.1:2,pids=3"},
		{"hop2"},
	} {
		if _, err := parse(args, new(bytes.Buffer)); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}

// lossy is a proxy that changes one byte of every stream from the game and cuts
// every datagram: what no tunnel may do.
type lossy struct{ tcp, udp string }

// wrongAt is where in a stream the byte is.
const wrongAt = 100_000

func startLossy(t *testing.T, game string) lossy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		udp.Close()
		done.Wait()
	})
	done.Go(func() {
		for {
			player, err := listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() { carryWrongly(&done, player, game) })
		}
	})
	done.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			udp.WriteTo(buf[:n-1], from) //nolint:errcheck // the bench sees what is lost
		}
	})
	return lossy{listener.Addr().String(), udp.LocalAddr().String()}
}

func carryWrongly(done *sync.WaitGroup, player net.Conn, game string) {
	defer player.Close()
	local, err := net.Dial("tcp", game)
	if err != nil {
		return
	}
	defer local.Close()
	done.Go(func() {
		io.Copy(local, player) //nolint:errcheck // the bench sees what is lost
		local.Close()
	})
	buf := make([]byte, 64<<10)
	for position := 0; ; {
		n, err := local.Read(buf)
		if err != nil {
			return
		}
		if position <= wrongAt && wrongAt < position+n {
			buf[wrongAt-position] ^= 1
		}
		position += n
		if _, err := player.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestBench_FailsATunnelThatChangesWhatItCarries(t *testing.T) {
	game := inProcess(t)[0].TCP
	wrong := startLossy(t, game)
	s := subject.Subject{Name: "wrong", TCP: wrong.tcp, UDP: wrong.udp, PIDs: []int{os.Getpid()}}
	settings := measure.Settings{Duration: 40 * time.Millisecond, Idle: 1, Flows: []int{1}}
	for _, m := range measure.All {
		if !slices.Contains([]string{"download", "download8", "udp-rtt", "udp-load", "udp-flows", "udp-offered"}, m.Name) {
			continue
		}
		if values, _, err := m.Take(t.Context(), s, settings); err == nil {
			t.Errorf("%s found nothing wrong: %v", m.Name, values)
		}
	}
}
