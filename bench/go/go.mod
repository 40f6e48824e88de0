module dbproxy/bench

go 1.24
