from dropasr.cli import main

raise SystemExit(main())
