package main

// Log lines in the form of slog's text handler, on stderr, as in the real one.

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

var logMu sync.Mutex

func logLine(level, source, msg string, pairs ...any) {
	var b strings.Builder
	fmt.Fprintf(&b, "time=%s level=%s source=%s msg=%s", time.Now().Format("2006-01-02T15:04:05.000Z07:00"), level, source, logValue(msg))
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&b, " %v=%s", pairs[i], logValue(fmt.Sprint(pairs[i+1])))
	}
	logMu.Lock()
	defer logMu.Unlock()
	fmt.Fprintln(os.Stderr, b.String())
}

func logValue(s string) string {
	if s == "" || strings.ContainsAny(s, " =\"\n\t") {
		return strconv.Quote(s)
	}
	return s
}

func logInfo(source, msg string, pairs ...any) { logLine("INFO", source, msg, pairs...) }
func logWarn(source, msg string, pairs ...any) { logLine("WARN", source, msg, pairs...) }
