//go:build linux

package machine_test

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/machine"
)

func TestSince_CountsAProcessAndNotItselfAsForeign(t *testing.T) {
	mark, err := machine.Now([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	const busy = 300 * time.Millisecond
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	spin(busy)
	usage, err := mark.Since()
	if err != nil {
		t.Fatal(err)
	}
	if usage.Elapsed < busy {
		t.Errorf("elapsed: %v", usage.Elapsed)
	}
	// A busy machine gives it less; ticks may round it up.
	if usage.CPU < busy/20 || usage.CPU > usage.Elapsed*time.Duration(runtime.NumCPU()) {
		t.Errorf("CPU time of %v in %v", usage.CPU, usage.Elapsed)
	}
	if usage.Foreign < 0 || usage.Foreign > 1 {
		t.Errorf("foreign share: %v", usage.Foreign)
	}
}

func spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}

func TestNow_MissesAProcessThatHasEnded(t *testing.T) {
	child := exec.Command("true")
	if err := child.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := machine.Now([]int{child.Process.Pid}); err == nil {
		t.Error("a process that has ended was measured")
	}
}

func TestMemory_GrowsWithWhatIsUsed(t *testing.T) {
	self := []int{os.Getpid()}
	before, err := machine.Memory(self)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	block := make([]byte, size)
	for i := range block {
		block[i] = byte(i)
	}
	after, err := machine.Memory(self)
	runtime.KeepAlive(block)
	if err != nil {
		t.Fatal(err)
	}
	if grown := after - before; grown < size/2 {
		t.Errorf("%d bytes more after %d were used", grown, size)
	}
}
