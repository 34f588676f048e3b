//go:build linux

package machine

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory is the physical memory of processes in bytes: their own, and their
// share of what they have in common with others (PSS).
func Memory(pids []int) (int64, error) {
	var total int64
	for _, pid := range pids {
		n, err := proportionalSize(pid)
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		total += n
	}
	return total, nil
}

func proportionalSize(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), "Pss:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		return kb << 10, err
	}
	return 0, fmt.Errorf("smaps_rollup holds no Pss")
}
