// Command load is the load generator: one figure for each run.
//
// It prints lines of JSON. Before what is measured begins it says {"event":"ready"} and waits for a line on
// its input, so that whoever started it can read the proxy's processor time first; the result comes as
// {"event":"done", …}, and the connections stay open until the next line or the end of the input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"dbproxy/bench/wire"
)

const usage = `usage: load bulk|roundtrips|connect|idle|beside [options]`

// options of all sub-commands.
type options struct {
	target      target
	direction   string
	connections int
	hold        string
	bytes       int64
	size        int
	seconds     float64
	warmUp      float64
	interval    time.Duration
}

var input = bufio.NewScanner(os.Stdin)

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("%s", usage))
	}
	run, known := map[string]func(options) (any, error){
		"bulk": bulk, "roundtrips": roundTrips, "connect": connect, "idle": idle, "beside": beside,
	}[os.Args[1]]
	if !known {
		fail(fmt.Errorf("%s", usage))
	}
	result, err := run(parse(os.Args[1], os.Args[2:]))
	if err != nil {
		fail(err)
	}
	say("done", result)
	input.Scan()
}

func parse(name string, arguments []string) options {
	var o options
	var cert, key, ca, alpn string
	var resume bool
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	flags.StringVar(&o.target.address, "address", "", "where to connect")
	flags.StringVar(&o.target.tls, "tls", "none", "none, direct, or postgres: an SSLRequest first")
	flags.StringVar(&cert, "cert", "", "client certificate")
	flags.StringVar(&key, "key", "", "its private key")
	flags.StringVar(&ca, "ca", "", "authority of the server")
	flags.StringVar(&alpn, "alpn", "", "ALPN values, comma-separated")
	flags.BoolVar(&resume, "resume", false, "resume TLS sessions")
	flags.StringVar(&o.direction, "direction", "up", "bulk: up, down or both")
	flags.IntVar(&o.connections, "connections", 1, "how many at once; beside: of bulk")
	flags.StringVar(&o.hold, "hold", "1000,5000", "idle: how many connections to hold, one after another")
	flags.Int64Var(&o.bytes, "bytes", 512<<20, "bulk: of each connection and direction")
	flags.IntVar(&o.size, "size", 64, "bytes of a round trip")
	flags.Float64Var(&o.seconds, "seconds", 1, "how long")
	flags.Float64Var(&o.warmUp, "warm-up", 0.1, "seconds of round trips before they count")
	flags.DurationVar(&o.interval, "interval", 0, "connect: from one to the next; 0: at once")
	_ = flags.Parse(arguments)
	if o.target.tls != "none" {
		var protocols []string
		if alpn != "" {
			protocols = strings.Split(alpn, ",")
		}
		config, err := wire.ClientConfig(cert, key, ca, protocols, resume)
		if err != nil {
			fail(err)
		}
		o.target.config = config
	}
	return o
}

// pause says that something is so far and waits until it may go on.
func pause(event string, value any) {
	say(event, value)
	if !input.Scan() {
		os.Exit(1) // nobody waits for the result any more
	}
}

func say(event string, value any) {
	fields := map[string]any{}
	if value != nil {
		data, err := json.Marshal(value)
		if err != nil {
			fail(err)
		}
		_ = json.Unmarshal(data, &fields)
	}
	fields["event"] = event
	_ = json.NewEncoder(os.Stdout).Encode(fields)
}

func fail(err error) {
	say("error", map[string]string{"error": err.Error()})
	os.Exit(1)
}

func (o options) duration() time.Duration {
	return time.Duration(o.seconds * float64(time.Second))
}

func (o options) warmUpDuration() time.Duration {
	return time.Duration(o.warmUp * float64(time.Second))
}
