package webhooks_test

import (
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }
